"""Verdicts on hand-made tables of rows: each kind of part, each outcome, and everything that cannot be judged."""

import json
import re
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.claims import Claim, check_claims, judge, judge_all, read_claims, read_verdicts, write_verdicts
from common.errors import ConfigError, DataError
from common.records import RecordSet, Row, Scale, write_record
from common.reported import ReportedNumber, read_reported
from tests.example_records import make_record

REPORTED = [ReportedNumber(id="paper-number", table="Table 1", row="ours", column="error", value=Decimal("10.0"), unit="1")]
ERROR = {"experiment": "measure", "metric": "error"}


def table(values, *, method="ours", record="example/measure/all", **settings):
    """One row a value, numbered by `seed`."""
    return pd.DataFrame(
        [
            {"experiment": "measure", "metric": "error", "value": float(v), "method": method, "seed": i, "record": record}
            | settings
            for i, v in enumerate(values)
        ]
    )


def claim(*parts, **fields):
    return Claim.model_validate(
        {"id": "it_holds", "statement": "It holds.", "source": "Section 1", "parts": list(parts)} | fields
    )


def verdict(part, rows, scale: Scale = "standard", **fields):
    return judge(claim({"says": "the part", **part}, **fields), rows, scale, REPORTED)


def comparison(**changes):
    part = {
        "kind": "comparison",
        "better": ERROR | {"method": "ours"},
        "than": ERROR | {"method": "theirs"},
        "paired_by": ["seed"],
        "higher_is_better": True,
    }
    return part | changes


def two_methods(ours, theirs):
    return pd.concat([table(ours), table(theirs, method="theirs")], ignore_index=True)


@pytest.mark.parametrize(
    ("statistic", "limit", "outcome", "estimate"),
    [
        ("max", {"at_most": 3}, "reproduced", 3),
        ("max", {"at_most": 2.9}, "contradicted", 3),
        ("min", {"at_least": 1}, "reproduced", 1),
        ("min", {"at_least": 1.1}, "contradicted", 1),
        ("mean", {"at_most": 3}, "reproduced", 2),
        ("mean", {"at_most": 2.1}, "inconclusive", 2),
        ("mean", {"at_most": 0.9}, "contradicted", 2),
        ("mean", {"at_least": 1}, "reproduced", 2),
        ("mean", {"at_least": 1.9}, "inconclusive", 2),
        ("mean", {"at_least": 3.1}, "contradicted", 2),
    ],
)
def test_bound(statistic, limit, outcome, estimate):
    found = verdict({"kind": "bound", "of": ERROR, "statistic": statistic, **limit}, table([1, 3, 2]))
    assert (found.outcome, found.evidence[0].estimate, found.evidence[0].n) == (outcome, estimate, 3)
    assert found.evidence[0].limit == next(iter(limit.values()))
    assert found.evidence[0].records == ["example/measure/all"]


@pytest.mark.parametrize(
    ("ours", "theirs", "changes", "outcome"),
    [
        ([2, 3, 4], [1, 1, 1], {}, "reproduced"),
        ([1, 1, 1], [2, 3, 4], {}, "contradicted"),
        ([1, 3, 1], [2, 1, 2], {}, "inconclusive"),
        ([1, 1, 1], [2, 3, 4], {"higher_is_better": False}, "reproduced"),
        ([2, 3, 4], [1, 1, 1], {"margin": 1}, "inconclusive"),  # the smallest gain is the margin, not more
        ([2, 3, 4], [1, 1, 1], {"margin": 0.9}, "reproduced"),
        ([2, 3, 4], [1, 1, 1], {"margin": 4}, "contradicted"),
        ([1, 2, 3], [1, 2, 3], {"margin": -0.1}, "reproduced"),  # no worse than
        ([1, 2, 3], [1, 2, 3], {}, "inconclusive"),  # equal: neither beats the other
    ],
)
def test_comparison(ours, theirs, changes, outcome):
    assert verdict(comparison(**changes), two_methods(ours, theirs)).outcome == outcome


def test_a_comparison_pairs_items_whatever_their_order_and_averages_within_an_item():
    rows = two_methods([1, 5, 9], [0, 4, 8]).sample(frac=1, random_state=0)
    assert verdict(comparison(), rows).evidence[0].model_dump(include={"estimate", "low", "high"}) == {
        "estimate": 1.0,
        "low": 1.0,
        "high": 1.0,
    }
    twice = pd.concat([rows, rows.assign(value=rows["value"] + 2)])
    assert verdict(comparison(), twice).evidence[0].n == 3


def test_every_listed_value_must_have_been_measured():
    part = {"kind": "bound", "of": ERROR | {"setting": {"length": [1, 2]}}, "statistic": "max", "at_most": 9}
    one, two = table([1], length=1), table([2], length=2)
    assert verdict(part, pd.concat([one, two])).outcome == "reproduced"
    found = verdict(part, one)
    assert (found.outcome, found.evidence) == ("not tested", [])
    assert "no records of length=2 among measure: error, length=[1, 2]" in found.reason


def test_every_group_that_lists_name_must_have_been_measured():
    of = ERROR | {"setting": {"length": [1, 2], "density": [0.2, 0.3]}}
    rows = [table([1], length=1, density=0.2), table([1], length=1, density=0.3), table([1], length=2, density=0.2)]
    part = {"kind": "bound", "of": of, "statistic": "max", "at_most": 9}
    assert verdict(part, pd.concat(rows)).outcome == "reproduced"  # values together: each is there
    each = part | {"for_each": ["length", "density"]}
    assert "no records of length=2, density=0.3 among" in verdict(each, pd.concat(rows)).reason
    assert verdict(each, pd.concat([*rows, table([1], length=2, density=0.3)])).outcome == "reproduced"


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=8),
    higher=st.booleans(),
)
def test_swapping_the_sides_of_a_comparison_flips_the_outcome(pairs, higher):
    rows = two_methods(*zip(*pairs, strict=True))
    part = comparison(higher_is_better=higher)
    forth = verdict(part, rows).outcome
    back = verdict({**part, "better": part["than"], "than": part["better"]}, rows).outcome
    assert back == {"reproduced": "contradicted", "contradicted": "reproduced", "inconclusive": "inconclusive"}[forth]


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(-9, 9), min_size=1, max_size=8),
    limits=st.tuples(st.integers(-10, 10), st.integers(-10, 10)).map(sorted),
)
def test_a_stricter_bound_never_gives_a_better_outcome(values, limits):
    order = ["contradicted", "inconclusive", "reproduced"]
    loose, strict = (
        verdict({"kind": "bound", "of": ERROR, "statistic": "mean", "at_least": limit}, table(values)).outcome
        for limit in limits
    )
    assert order.index(strict) <= order.index(loose)


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        ({"at_least": 2}, "reproduced"),
        ({"at_least": 2.1}, "contradicted"),
        ({"at_most": 2}, "reproduced"),
        ({"at_most": 1}, "contradicted"),
    ],
)
def test_ratio_divides_medians(limit, outcome):
    part = {"kind": "ratio", "numerator": ERROR | {"method": "ours"}, "denominator": ERROR | {"method": "theirs"}, **limit}
    found = verdict(part, two_methods([4, 100, 1], [2, 0.1, 3]))
    assert (found.outcome, found.evidence[0].estimate) == (outcome, 2.0)


def test_the_sides_of_a_ratio_must_come_from_the_same_records():
    rows = pd.concat([table([4], record="example/measure/a"), table([2], method="theirs", record="example/measure/b")])
    part = {
        "kind": "ratio",
        "numerator": ERROR | {"method": "ours"},
        "denominator": ERROR | {"method": "theirs"},
        "at_least": 1,
    }
    found = verdict(part, rows)
    assert (found.outcome, found.reason) == ("not tested", "the part: the two sides were not measured in the same run")
    assert verdict(part, two_methods([4], [0])).reason == "the part: the denominator is 0"


@pytest.mark.parametrize(
    ("values", "tolerance", "outcome", "step"),
    [
        ([1, 2, 3], 0, "reproduced", 1),
        ([1, 3, 2], 0, "contradicted", -1),
        ([1, 3, 2], 1, "reproduced", -1),
        ([3, 3, 3], 0, "reproduced", 0),
    ],
)
def test_trend(values, tolerance, outcome, step):
    rows = pd.concat([table([v], length=length) for v, length in zip(values, (512, 1024, 2048), strict=True)])
    part = {"kind": "trend", "of": ERROR, "along": "length", "tolerance": tolerance}
    found = verdict(part, rows.sample(frac=1, random_state=1))
    assert (found.outcome, found.evidence[0].estimate) == (outcome, step)
    assert "at least two settings of length" in verdict(part, table([1, 2], length=512)).reason


@pytest.mark.parametrize(
    ("values", "tolerance", "outcome"),
    [
        ([9.5, 10.5, 10], 0.5, "reproduced"),
        ([9.5, 10.5, 10], 0.1, "inconclusive"),
        ([11, 12, 13], 0.9, "contradicted"),
        ([7, 8, 9], 0.9, "contradicted"),
        ([10.4], 0.5, "reproduced"),
        ([10.6], 0.5, "contradicted"),
    ],
)
def test_agreement_is_two_sided(values, tolerance, outcome):
    found = verdict({"kind": "agreement", "of": ERROR, "reported": "paper-number", "tolerance": tolerance}, table(values))
    assert found.outcome == outcome
    assert found.evidence[0].estimate == pytest.approx(sum(values) / len(values) - 10)


@pytest.mark.parametrize(
    "part",
    [
        comparison(),
        {"kind": "bound", "of": ERROR, "statistic": "mean", "at_most": 100},
    ],
    ids=["comparison", "mean"],
)
def test_a_single_item_is_inconclusive(part):
    found = verdict(part, two_methods([5], [1]) if part["kind"] == "comparison" else table([5]))
    assert (found.outcome, found.evidence[0].n, found.evidence[0].low) == ("inconclusive", 1, None)
    assert "there is one item" in found.reason


def test_a_part_must_hold_in_each_group():
    rows = pd.concat([table([1, 2], length=8), table([1, 9], length=16)])
    part = {"kind": "bound", "of": ERROR, "statistic": "max", "at_most": 5, "for_each": ["length"]}
    found = verdict(part, rows)
    assert [(e.group, e.outcome) for e in found.evidence] == [("length=8", "reproduced"), ("length=16", "contradicted")]
    assert (found.outcome, found.reason) == ("contradicted", "the part (length=16)")


def test_a_group_is_named_by_a_whole_number_where_other_rows_lack_the_setting():
    rows = pd.concat([table([1, 2], length=8), table([3])])
    rows = rows[rows["length"].notna()]
    assert rows["length"].dtype == float
    found = verdict({"kind": "bound", "of": ERROR, "statistic": "max", "at_most": 5, "for_each": ["length"]}, rows)
    assert [e.group for e in found.evidence] == ["length=8"]


def test_an_agreement_is_tested_in_each_group():
    part = {"kind": "agreement", "of": ERROR, "reported": "paper-number", "tolerance": 1, "for_each": ["length"]}
    found = verdict(part, pd.concat([table([10], length=8), table([20], length=16)]))
    assert {e.group: e.outcome for e in found.evidence} == {"length=8": "reproduced", "length=16": "contradicted"}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"kind": "bound", "of": ERROR | {"metric": "gain"}, "statistic": "max", "at_most": 1}, "no records of measure: gain"),
        (
            {"kind": "bound", "of": ERROR | {"setting": {"legnth": 8}}, "statistic": "max", "at_most": 1},
            "no records of .*legnth=8",
        ),
        (
            {"kind": "bound", "of": ERROR, "statistic": "max", "at_most": 9, "for_each": ["legnth"]},
            "not every row has the setting legnth",
        ),
        (
            {"kind": "bound", "of": ERROR, "statistic": "max", "at_most": 9, "for_each": ["depth"]},
            "not every row has the setting depth",
        ),
        (comparison(paired_by=["text"]), "not every row has the setting text"),
        (comparison(paired_by=["seed"], for_each=["length"]), "no records of one side of the part, length=16"),
        (comparison(than=ERROR | {"method": "theirs", "setting": {"seed": 0}}), "the two sides have different seed"),
        ({"kind": "trend", "of": ERROR, "along": "depth"}, "not every row has the setting depth"),
    ],
)
def test_what_was_not_measured_is_not_tested_with_a_reason(part, reason):
    rows = two_methods([1, 2], [3, 4]).assign(length=8)
    rows = pd.concat([rows, table([1], length=16), table([1], length=8, depth=2.0)])
    found = verdict(part, rows)
    assert found.outcome == "not tested"
    assert re.search(reason, found.reason)
    assert verdict(part, pd.DataFrame()).outcome == "not tested"


def test_smoke_is_never_judged_and_other_scales_only_where_the_claim_says():
    part = {"kind": "bound", "of": ERROR, "statistic": "max", "at_most": 5}
    assert verdict(part, table([1])).outcome == "reproduced"
    smoke = verdict(part, table([1]), scale="smoke")
    assert (smoke.outcome, smoke.evidence) == ("not tested", [])
    assert "never judged" in smoke.reason
    elsewhere = verdict(part, table([1]), scales=["paper"], bring=["the weights, from their authors"])
    assert elsewhere.words == "not tested (needs scale paper; bring: the weights, from their authors)"


def test_a_claim_without_parts_says_why():
    found = judge(claim(not_tested="it needs people"), table([1]), "standard", [])
    assert found.words == "not tested (it needs people)"


def test_the_worst_part_decides():
    holds = {"kind": "bound", "says": "holds", "of": ERROR, "statistic": "max", "at_most": 5}
    open_ = {"kind": "bound", "says": "is open", "of": ERROR, "statistic": "mean", "at_most": 2}
    fails = {"kind": "bound", "says": "fails", "of": ERROR, "statistic": "max", "at_most": 1}
    rows = table([1, 3])
    for parts, outcome, reason in (
        ((holds, holds), "reproduced", ""),
        ((holds, open_), "inconclusive", "is open"),
        ((open_, fails, holds), "contradicted", "fails"),
    ):
        found = judge(claim(*parts), rows, "standard", [])
        assert found.outcome == outcome
        assert found.reason.endswith(reason)
        assert len(found.evidence) == len(parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": []}, "give either `parts` or `not_tested`"),
        ({"not_tested": "no"}, "give either `parts` or `not_tested`"),
        ({"scales": ["smoke"]}, "never judged"),
        ({"id": "It Holds"}, "id = 'It Holds'"),
        ({"sorce": "x"}, "sorce: unknown key; did you mean 'source'"),
        ({"parts": [{"kind": "bund"}]}, "bund"),
        ({"parts": [{"kind": "bound", "says": "x", "of": ERROR, "statistic": "max"}]}, "exactly one of at_least, at_most"),
        (
            {"parts": [{"kind": "agreement", "says": "x", "of": ERROR, "reported": "other", "tolerance": 1}]},
            "'other' is not in reported.csv",
        ),
        ({"reported": ["another"]}, "'another' is not in reported.csv"),
    ],
)
def test_a_wrong_claims_file_is_explained(tmp_path, change, message):
    part = {"kind": "bound", "says": "x", "of": ERROR, "statistic": "max", "at_most": 1}
    entry = {"id": "it_holds", "statement": "It holds.", "source": "Section 1", "parts": [part]} | change
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps({"claims": [entry]}))  # JSON is YAML
    with pytest.raises(ConfigError) as caught:
        read_claims(path, REPORTED)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def paper_folder(tmp_path, parts):
    claims = [{"id": f"claim_{i}", "statement": "s", "source": "p", "parts": [part]} for i, part in enumerate(parts)]
    (tmp_path / "claims.yaml").write_text(json.dumps({"claims": claims}))
    (tmp_path / "reported.csv").write_text(
        "id,table,row,column,value,unit,experiment,metric,method,setting,note\nx,T,r,c,1,1,mesure,error,,,\n"
    )
    return tmp_path


def test_unknown_experiments_are_found_before_anything_runs(tmp_path):
    parts = [comparison(says="x", than={"experiment": "nowhere", "metric": "error"})]
    with pytest.raises(ConfigError) as caught:
        check_claims(paper_folder(tmp_path, parts), ["measure"])
    assert "claim claim_0: there is no experiment 'nowhere'; config.yaml has measure" in str(caught.value)
    assert "reported.csv: x: there is no experiment 'mesure'; did you mean 'measure'?" in str(caught.value)
    check_claims(tmp_path, ["measure", "mesure", "nowhere"])


def test_verdicts_come_from_records_and_survive_being_written(tmp_path):
    parts = [{"kind": "bound", "says": "x", "of": ERROR, "statistic": "max", "at_most": limit} for limit in (1, 0.1)]
    folder = paper_folder(tmp_path, parts)
    write_record(tmp_path / "records" / "measure" / "seed=0", make_record([Row(metric="error", value=0.5, unit="1")]), {})
    verdicts = judge_all(folder, RecordSet(tmp_path / "records"), "standard")
    assert [v.outcome for v in verdicts] == ["reproduced", "contradicted"]
    assert verdicts[0].evidence[0].records == ["example/measure/seed=0"]
    write_verdicts(tmp_path / "verdicts.json", verdicts)
    assert read_verdicts(tmp_path / "verdicts.json") == verdicts
    assert len(read_reported(folder / "reported.csv")) == 1


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '[{"claim": "x"}]'])
def test_a_damaged_verdicts_file_gives_one_sentence(tmp_path, content):
    path = tmp_path / "verdicts.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"verdicts\.json (cannot be read|holds no verdicts)"):
        read_verdicts(path)
