"""What a CSV file says about photos: how its cells are read, and which columns are tasks."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from pictures import encoded, picture, write_folder, write_zip

from splitleak.victims.data.base import Catalog
from splitleak.victims.data.parts import PartSizes, divide
from splitleak.victims.data.sources.files import Index
from splitleak.victims.errors import InvalidInputError

PHOTO = encoded(picture())


def index(place: Path, rows: Sequence[Sequence[object]], files: Sequence[str] = ()) -> Index:
    """A folder with the photos that the rows name, or with these files, and a CSV file of the rows."""
    write_folder(place, dict.fromkeys(files or [str(row[0]) for row in rows[1:]], PHOTO))
    (place / "index.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    return Index(str(place))


def column(place: Path, name: str, cells: Sequence[object]) -> Catalog:
    """A catalogue with as many photos as cells."""
    rows = [("path", name), *((f"{number:03d}.png", cell) for number, cell in enumerate(cells))]
    return index(place, rows).catalog()


def classes(catalog: Catalog, task: str = "label") -> list[str]:
    """Of the photos in turn, "?" where it is unknown."""
    labels = catalog.labels[task]
    return [labels.classes[value] if value >= 0 else "?" for value in labels.values.tolist()]


# cells

UNKNOWN = ["", "nan", "NaN", "NA", "N/A", "n/a", "None", "null", "NULL", "<NA>", "NaT", "#N/A", "  "]


def test_cells_without_a_value_are_unknown(tmp_path: Path) -> None:
    catalog = column(tmp_path, "label", ["a", "b", *UNKNOWN, "a", "b"])
    assert classes(catalog) == ["a", "b", *("?" * len(UNKNOWN)), "a", "b"]
    assert catalog.labels["label"].classes == ("a", "b")
    assert len(catalog.notes) == 1
    assert catalog.notes[0].startswith("column 'label': 11 cells with #N/A, <NA>, N/A, NA, NULL, NaN, NaT, None")
    assert catalog.notes[0].endswith("taken as unknown")


def test_people_without_a_name_are_not_one_person(tmp_path: Path) -> None:
    catalog = column(tmp_path, "identity", ["p", "p", "nan", "NA", "", "q"])
    assert catalog.identity is not None
    assert catalog.identity.tolist() == [0, 0, -1, -1, -1, 1]


def test_words_that_may_be_classes_are_classes(tmp_path: Path) -> None:
    assert classes(column(tmp_path, "label", ["none", "empty", "unknown", "none", "empty", "unknown"])) == [
        *("none", "empty", "unknown") * 2
    ]


def test_a_split_in_capitals_or_without_a_value(tmp_path: Path) -> None:
    catalog = column(tmp_path, "Split", ["Train", "VAL", "testing", "nan", ""])
    assert catalog.split == ("train", "validation", "target", "", "")
    assert catalog.labels == {}


def test_blanks_around_cells_and_blank_rows_count_for_nothing(tmp_path: Path) -> None:
    source = index(tmp_path, [("path",)], ["a.png", "b.png", "c.png"])
    (tmp_path / "index.csv").write_text(" path , label \n a.png , x \n\n , \nb.png,x\t\nc.png,y\n,\n")
    assert classes(source.catalog()) == ["x", "x", "y"]


# numbers


def test_whole_numbers_are_in_numeric_order(tmp_path: Path) -> None:
    cells = [number % 12 for number in range(60)]
    catalog = column(tmp_path, "label", cells)
    assert catalog.labels["label"].values.tolist() == cells
    assert catalog.labels["label"].classes == tuple(map(str, range(12)))
    assert catalog.notes == ("column 'label': whole numbers, in numeric order: 0, 1, 2, ..., 11",)


def test_negative_numbers_come_first(tmp_path: Path) -> None:
    catalog = column(tmp_path, "label", ["1", "-1", "0", "-10"] * 3)
    assert catalog.labels["label"].classes == ("-10", "-1", "0", "1")


def test_spellings_of_one_number_are_one_class(tmp_path: Path) -> None:
    catalog = column(tmp_path, "label", ["1", "1.0", "0", "0.0", "01", "1e0", "+0", "2", "2"])
    assert catalog.labels["label"].classes == ("0", "1", "2")
    assert catalog.labels["label"].values.tolist() == [1, 1, 0, 0, 1, 1, 0, 2, 2]
    assert catalog.notes == (
        "column 'label': spellings of one number are one class: +0 and 0 and 0.0, 01 and 1 and 1.0 and 1e0",
    )


def test_large_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    first, second = 2**60, 2**60 + 1  # one number in floating point
    catalog = column(tmp_path, "label", [first, second, first, second])
    assert catalog.labels["label"].values.tolist() == [0, 1, 0, 1]


def test_numbers_beside_words_are_words(tmp_path: Path) -> None:
    catalog = column(tmp_path, "label", ["1", "1.0", "x", "10", "2"] * 3)
    assert catalog.labels["label"].classes == ("1", "1.0", "10", "2", "x")


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([f"{20 + 0.37 * number:.2f}" for number in range(30)], "holds measurements such as 20.37, no classes"),
        (["0.5", "1", "1.5", "2"] * 10, "holds measurements such as 0.5, no classes"),
        (["0.5", "0.25", "0.75", "?"] * 10, "holds measurements such as 0.5, no classes"),
        (list(range(1000, 1030)), "has 30 different values for 30 photos: measurements, no classes"),
        ([*range(28), 0, 0], "has 28 different values for 30 photos: measurements, no classes"),
        (
            [f"photo of {number}" for number in range(30)],
            "has 30 different values for 30 photos: about one photo each",
        ),
        (["", "nan", "", ""], "is unknown for every photo"),
    ],
)
def test_what_is_no_label_is_refused_as_a_task_and_all_else_works(
    tmp_path: Path, cells: list[object], why: str
) -> None:
    rows = [(f"{number:03d}.png", cell, "xy"[number % 2]) for number, cell in enumerate(cells)]
    catalog = index(tmp_path, [("path", "age", "label"), *rows]).catalog()
    assert list(catalog.labels) == ["label"]
    assert f"column 'age' {why}" in " | ".join(catalog.notes)
    sizes = PartSizes(1, 1, 1, 1)
    assert set(divide(catalog, sizes, "label", 0).indices) == {"train", "auxiliary", "validation", "target"}
    with pytest.raises(InvalidInputError, match=f"'age' cannot be a task: it {why.split('?')[0]}") as caught:
        divide(catalog, sizes, "age", 0)
    assert "\n" not in str(caught.value)


def test_few_photos_of_each_class_are_classes_still(tmp_path: Path) -> None:
    assert classes(column(tmp_path, "label", [0, 1, 0, 1])) == ["0", "1", "0", "1"]
    assert classes(column(tmp_path, "label", ["a", "b", "b"])) == ["a", "b", "b"]


# the file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, separator: str, ending: str) -> None:
    rows = [("path", "größe"), ("ä.png", '"a, b; c"'), ("b.png", '"two\nlines"'), ("c.png", '"a, b; c"')]
    source = index(tmp_path, [("path",)], ["ä.png", "b.png", "c.png"])
    text = ending.join(separator.join(row) for row in rows)
    (tmp_path / "index.csv").write_bytes(text.encode(encoding))
    assert classes(source.catalog(), "größe") == ["a, b; c", "two\nlines", "a, b; c"]


def test_a_separator_is_what_names_the_columns(tmp_path: Path) -> None:
    source = index(tmp_path, [("path",)], ["a;b.png", "c.png"])
    (tmp_path / "index.csv").write_text("path\na;b.png\nc.png\n")
    assert source.catalog().names == ("a;b.png", "c.png")
    (tmp_path / "index.csv").write_text('"path","a;b"\n"a;b.png","x"\n"c.png","x"\n')
    assert classes(source.catalog(), "a;b") == ["x", "x"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"path,label,label\na.png,x,y\n", "a name of its own: path, label, label"),
        (b"path,Path\na.png,b.png\n", "a name of its own: path, path"),
        (b"path,label\na.png,x,y\n", "row 1 has 3 cells, the header 2"),
        (b'path,label\na.png,"x\n', "is no CSV file in UTF-8"),
        ("path,größe\na.png,x\n".encode("latin-1"), "is no CSV file in UTF-8"),
        ("path,label\na.png,x\n".encode("utf-16-le"), r"needs a column 'path'; its columns are: p\\x00a"),
        (b"path,split\na.png,dev\n", "unknown split 'dev'; known: train, training, val"),
        (b"path|label\na.png|x\n", "needs a column 'path'; its columns are: path|label"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    source = index(tmp_path, [("path",)], ["a.png", "b.png"])
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        source.catalog()
    assert complaint.replace("\\\\", "\\") in str(caught.value)
    assert "\n" not in str(caught.value)


# paths


def forms(name: str) -> tuple[str, str]:
    return unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(
    ("listed", "there", "told"),
    [
        ("./cat//a.png", "cat/a.png", ""),
        ("cat\\a.png", "cat/a.png", ""),
        (".\\cat\\a.png", "cat/a.png", ""),
        ("cat\\a.png", "cat\\a.png", ""),
        ("1:30.png", "1:30.png", ""),
        (forms("é/ü.png")[0], forms("é/ü.png")[1], "1 path found under a name that differs in Unicode's form only"),
        (forms("é/ü.png")[1], forms("é/ü.png")[0], "1 path found under a name that differs in Unicode's form only"),
        ("Cat/A.PNG", "cat/a.png", "1 path found under a name that differs in capitals only"),
        (forms("É.png")[0], forms("é.png")[1], "1 path found under a name that differs in capitals only"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_path_that_can_only_mean_one_file_is_found(
    tmp_path: Path, listed: str, there: str, told: str, zipped: bool
) -> None:
    table = f"path,label\n{listed},x\nother.png,y\nthird.png,y\n".encode()
    files = {there: PHOTO, "other.png": PHOTO, "third.png": PHOTO, "index.csv": table}
    place = write_zip(tmp_path / "a.zip", files) if zipped else write_folder(tmp_path / "a", files)
    catalog = Index(str(place)).catalog()
    assert catalog.names[0] == (there.replace("\\", "/") if zipped else there)
    assert catalog.notes == ((told,) if told else ())
    assert len(Index(str(place)).read([0], 8).images) == 1


def test_an_exact_name_is_never_another_file(tmp_path: Path) -> None:
    rows = [("path", "label"), ("a.png", "x"), ("A.png", "x"), ("B.png", "y")]
    assert index(tmp_path, rows, ["a.png", "A.png", "b.png"]).catalog().names == ("a.png", "A.png", "b.png")


@pytest.mark.parametrize(
    ("listed", "there", "complaint"),
    [
        (["A.png"], ["a.png", "a.PNG"], "lists 'A.png', which may mean a.PNG, a.png"),
        (["A.png", "a.png"], ["a.png"], "lists the photo 'a.png' twice"),
        (["gone.png"], ["a.png"], "lists 1 photos that are not in .*, first 'gone.png'"),
        (["x" * 3000], ["a.png"], "lists 1 photos that are not in"),
        (["cat\\..\\..\\a.png"], ["a.png"], "paths must stay inside"),
        (["\\\\server\\a.png"], ["a.png"], "paths must stay inside"),
    ],
)
def test_a_path_that_means_no_file_or_several_is_refused(
    tmp_path: Path, listed: list[str], there: list[str], complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        index(tmp_path, [("path",), *((path,) for path in listed)], there).catalog()
    assert "\n" not in str(caught.value)


def test_the_fingerprint_is_of_what_is_read(tmp_path: Path) -> None:
    source = index(tmp_path, [("path", "label"), ("a.png", "x"), ("b.png", "y"), ("c.png", "y")])
    before = source.fingerprint()
    (tmp_path / "index.csv").write_text("path;label\n./a.png;x\nb.png; y\nc.png;y\n")
    assert source.fingerprint() == before
    (tmp_path / "index.csv").write_text("path;label\n./a.png;x\nb.png; y\nc.png;nan\n")
    assert source.fingerprint() != before
