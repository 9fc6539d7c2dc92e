"""Reported numbers: read exactly, or refused with every wrong line."""

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.reported import read_reported

HEADER = "id,table,row,column,value,unit,experiment,metric,method,setting,note"


def written(tmp_path, *lines, header=HEADER):
    path = tmp_path / "reported.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_line_is_read_field_by_field(tmp_path):
    line = 'a-1,"Table 1, top",row,col,28.4,BLEU,measure,error,ours, d_k=64; text=wiki=2 ,"a, ""note"""'
    (number,) = read_reported(written(tmp_path, line))
    assert (number.table, number.value, number.note) == ("Table 1, top", Decimal("28.4"), 'a, "note"')
    assert number.settings == {"d_k": "64", "text": "wiki=2"}


def test_a_header_alone_is_a_paper_without_numbers(tmp_path):
    assert read_reported(written(tmp_path)) == []


def test_columns_that_are_always_empty_may_be_left_out(tmp_path):
    (number,) = read_reported(written(tmp_path, "a,T,r,c,1,1", header="id,table,row,column,value,unit"))
    assert (number.experiment, number.settings) == ("", {})


def test_every_wrong_line_is_named(tmp_path):
    path = written(
        tmp_path,
        "a,T,r,c,1,1,,,,,",
        "a,T,r,c,2,1,,,,,",
        "b,T,r,c,many,1,,,,,",
        "c,T,r,c,nan,1,,,,,",
        "D E,T,r,c,1,1,,,,,",
        "f,T,r,c,1,1,m,e,,length,",
        "g,T,r",
        "h,T,r,c,1,1,,,,,,,more",
    )
    with pytest.raises(ConfigError) as caught:
        read_reported(path)
    message = str(caught.value)
    for part in (
        "the id 'a' is given twice",
        "line 4: value = 'many'",
        "line 5: value = 'nan'",
        "line 6: id = 'D E'",
        "line 7: setting = 'length': write key=value",
        "line 8: it does not have as many fields",
        "line 9: it does not have as many fields",
    ):
        assert part in message
    assert all(line.startswith(str(path)) for line in message.splitlines())


@pytest.mark.parametrize("header", ["", "a,T,r,c,1,1,,,,,", HEADER.replace("metric", "metrc"), HEADER.replace("id,", "")])
def test_a_wrong_header_is_shown_beside_the_right_one(tmp_path, header):
    with pytest.raises(ConfigError, match=f"the header is {header or 'missing'}; it must be {HEADER}"):
        read_reported(written(tmp_path, header=header))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe,")])
def test_a_file_that_cannot_be_read_gives_one_sentence(tmp_path, make):
    make(tmp_path / "reported.csv")
    with pytest.raises(ConfigError, match=r"reported\.csv (does not exist|cannot be read)"):
        read_reported(tmp_path / "reported.csv")


@pytest.mark.parametrize("path", sorted(Path("papers").glob("*/reported.csv")), ids=lambda path: path.parent.name)
def test_the_papers_numbers_are_read_as_they_stand(path):
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    numbers = read_reported(path)
    assert [line["value"].strip() for line in lines] == [str(number.value) for number in numbers]  # to the digit
    assert [line["id"] for line in lines] == [number.id for number in numbers]
