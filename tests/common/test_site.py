"""The static site: made from recorded results alone, whole, and used as a reader does in a real browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from common import publish, site, workflow
from common.errors import DataError
from common.provenance import REPOSITORY
from common.publish import write_files
from tests.example_records import TEMPLATE, measure_template

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with the template's records, and its site."""
    root = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        measure_template(root / "measured", "standard")
        shutil.copytree(TEMPLATE, root / "papers" / "_template", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(REPOSITORY / "CITATION.cff", root / "CITATION.cff")
        target = root / "results" / "recorded" / "a-machine" / "_template" / "standard" / "records"
        shutil.copytree(root / "measured", target, ignore=shutil.ignore_patterns("*.index.json"))
        benchmark = {
            "benchmark": "sums", "arguments": {"lengths": [8]}, "machine": {"device": "a machine", "torch": "2"},
            "rows": [{"kernel": "ours", "ms": 1.5}, {"kernel": "a peer", "ms": 12.0}],
        }  # fmt: skip
        (root / "results/recorded/a-machine/benchmarks").mkdir()
        (root / "results/recorded/a-machine/benchmarks/sums.json").write_text(json.dumps(benchmark))
        (root / "README.md").write_text("<!-- overview: begin -->\n<!-- overview: end -->\n")
        for module in (publish, workflow, site):
            patch.setattr(module, "REPOSITORY", root)
        write_files(*publish.table_files(["_template"]))
        pages = site.build(root / "report" / "site", ["_template"])
        yield root, pages


class Page(HTMLParser):
    """What a page refers to and names."""

    def __init__(self, text):
        super().__init__()
        self.references, self.ids, self.unlabelled = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.references += [found[name] for name in ("href", "src") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "img" and not found.get("alt"):
            self.unlabelled.append(found)


def test_every_reference_leads_somewhere_and_every_id_is_unique(made):
    _, pages = made
    assert {page.name for page in pages} == {"index.html", "_template.html", "kernels.html", "methods.html"}
    for path in pages:
        page = Page(path.read_text())
        assert len(set(page.ids)) == len(page.ids)
        assert not page.unlabelled
        for reference in page.references:
            assert "//" not in reference  # no network
            address, _, anchor = reference.partition("#")
            assert not anchor or anchor in page.ids
            known = {"sparse_attention.html"}  # not made: the template measures none
            assert not address or address in {f"../{name}" for name in known} | known or (path.parent / address).exists()


def test_a_papers_page_has_claims_evidence_commands_and_citations(made):
    root, _ = made
    text = (root / "report/site/papers/_template.html").read_text()
    verdicts = json.loads((root / "report/tables/_template/verdicts.json").read_text())
    for verdict in verdicts:
        assert f'id="claim-{verdict["claim"]}"' in text
        assert len(re.findall(rf'class="outcome {verdict["outcome"].replace(" ", "-")}"', text)) >= 1
    assert "python -m papers._template.softmax_gradient" in text
    assert "records/softmax_gradient/seed=0/record.json" in text
    assert re.search(r"Reattend [\d.]+, _template/claims, commit [0-9a-f]{12}, records sha256 [0-9a-f]{12}", text)
    assert "@" in text  # BibTeX
    assert (root / "report/site/figures/_template/gradient_against_dimension.svg").exists()


@pytest.mark.usefixtures("made")
def test_another_number_gives_another_digest():
    records = publish.recorded_results("_template")[0].records.records
    changed = [records[0].model_copy(update={"results_sha256": "0" * 64}), *records[1:]]
    assert site.records_digest(records) == site.records_digest(list(reversed(records))) != site.records_digest(changed)


def test_a_folder_with_other_files_is_left_alone(made, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds files that are not a site"):
        site.build(tmp_path, ["_template"])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_it_is_made_again_in_place_and_is_the_same(made):
    root, pages = made
    before = {page: page.read_bytes() for page in pages}
    site.build(root / "report" / "site", ["_template"])
    assert {page: page.read_bytes() for page in pages} == before
    assert not list((root / "report").glob(".site*"))


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_a_reader_sorts_searches_and_copies(made, browser):
    root, pages = made
    page = browser.new_page(viewport={"width": 400, "height": 800})
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    for path in pages:
        page.goto(path.as_uri())
        assert page.title()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path.name} is {wide} pixels wider than a phone"
    page.goto((root / "report/site/kernels.html").as_uri())
    table = page.locator("table.sortable").first
    cells = lambda: table.locator("tbody td:last-child").all_text_contents()  # noqa: E731
    assert cells() == ["1.500", "12.00"]
    table.get_by_role("button", name="ms").click()
    assert cells() == ["1.500", "12.00"]
    table.get_by_role("button", name="ms").click()
    assert cells() == ["12.00", "1.500"]
    assert table.locator("th").last.get_attribute("aria-sort") == "descending"
    page.get_by_label("Search").first.fill("peer")
    assert [row.is_visible() for row in table.locator("tbody tr").all()] == [True, False]
    page.get_by_role("button", name="Copy as CSV").click()
    page.get_by_role("status").filter(
        has_text="CSV copied"
    ).wait_for()  # the clipboard answers later; fails after half a minute
    page.goto((root / "report/site/papers/_template.html").as_uri())
    page.get_by_label("Search claims").fill("bleu")
    assert page.locator("article.claim:visible").count() == 1
    assert told == []


def test_it_reads_by_keyboard_alone(made, browser):
    root, _ = made
    page = browser.new_page()
    page.goto((root / "report/site/index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    heads = page.get_by_role("button")
    heads.first.focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").count() == 1
