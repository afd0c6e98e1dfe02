import pytest

from pcdet.utils.tables import clock, format_table, human_count, markdown_table, mean_and_spread


def test_columns_line_up_names_left_and_numbers_right():
    assert format_table(["model", "AP"], [["teacher", 61.25], ["s", 7]]).splitlines() == [
        "model       AP",
        "--------------",
        "teacher  61.25",
        "s            7",
    ]


def test_several_columns_of_text_stand_to_the_left():
    assert format_table("abc", [["long", "text", 1234], ["x", "y", 5]], text=2).splitlines()[2:] == [
        "long  text  1234",
        "x     y        5",
    ]


def test_a_row_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"2 cells, got 1: \['teacher'\]"):
        format_table(["model", "AP"], [["teacher"]])


def test_a_markdown_table_has_its_text_to_the_left_and_its_numbers_to_the_right():
    assert markdown_table(("x", "y"), [("a|b", 1)]) == "| x | y |\n| --- | ---: |\n| a\\|b | 1 |"
    assert markdown_table("xyz", ["abc"], text=2).splitlines()[1] == "| --- | --- | ---: |"


def test_a_markdown_row_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"2 cells, got 1: \['teacher'\]"):
        markdown_table(["model", "AP"], [["teacher"]])


def test_spread_is_the_sample_standard_deviation():
    assert mean_and_spread([1.0, 2.0, 3.0]) == "2.0 +-1.0"
    assert mean_and_spread([4.25], digits=2) == "4.25"


@pytest.mark.parametrize(
    ("value", "text"),
    [(950, "950"), (1_220_000, "1.22 M"), (34.17e9, "34.17 G"), (1500, "1.50 k"), (2e12, "2.00 T"), (1.5e15, "1.50 P")],
)
def test_counts_are_shown_by_thousands(value, text):
    assert human_count(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")])
def test_a_clock_reads_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text
