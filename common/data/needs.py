"""What an experiment says it needs: `<data set>` for all its files, or `<data set>/<file>` for one."""

from collections.abc import Iterable

from common.data.fetch import digests, fetch
from common.data.registry import load_registry


def _files(need: str) -> list[tuple[str, str]]:
    dataset, _, file = need.partition("/")
    entries = load_registry().dataset(dataset)
    return [(dataset, entries.file(file).name)] if file else [(dataset, entry.name) for entry in entries.files]


def fetch_needs(need: str) -> None:
    """Fetch and verify the file or files of one need. Raises DataError as `common.data.fetch.fetch` does."""
    for dataset, file in _files(need):
        fetch(dataset, file)


def digests_of_needs(needs: Iterable[str]) -> dict[str, str]:
    """{"<data set>/<file>": sha256} of everything named, as registered. Raises DataError for unknown names."""
    return {f"{dataset}/{file}": digests(dataset)[f"{dataset}/{file}"] for need in needs for dataset, file in _files(need)}
