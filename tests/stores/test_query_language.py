"""The query language: what is written means one tree, and what is wrong is pointed at."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaapana_assets.errors import QueryError
from kaapana_assets.stores.query import All, And, Exists, Not, Or, Prefix, Range, Term, Text, parse

CT, MR = Term("Modality", "CT"), Term("Modality", "MR")

EXAMPLES = [
    ("*", All()),
    ("Modality:CT", CT),
    ("Modality:CT AND PatientAge:[40 TO 60]", And((CT, Range("PatientAge", "40", "60")))),
    ("StudyDate:[2020-01-01 TO *]", Range("StudyDate", "2020-01-01")),
    ("StudyDate:{* TO 2020}", Range("StudyDate", upper="2020", include_upper=False)),
    ("EchoTime:[10 TO 20}", Range("EchoTime", "10", "20", include_upper=False)),
    ("EchoTime:[* TO *]", Exists("EchoTime")),
    ("EchoTime:>=30", Range("EchoTime", "30")),
    ("EchoTime:< 30.5", Range("EchoTime", upper="30.5", include_upper=False)),
    ("EchoTime:>-3", Range("EchoTime", "-3", include_lower=False)),
    ("AcquisitionTime:>=10:30:00", Range("AcquisitionTime", "10:30:00")),
    ('SeriesDescription:"axial epi"', Text("axial epi", field="SeriesDescription")),
    ('SeriesDescription:="axial epi"', Term("SeriesDescription", "axial epi")),
    ("SeriesDescription:axial\\ epi", Term("SeriesDescription", "axial epi")),
    ("SeriesDescription:epi*", Prefix("SeriesDescription", "epi")),
    ('SeriesDescription:="axial e"*', Prefix("SeriesDescription", "axial e")),
    ("Modality:(CT OR MR)", Or((CT, MR))),
    ("Modality:(CT OR NOT MR) axial", And((Or((CT, Not(MR))), Text("axial")))),
    ("NOT Modality:CT", Not(CT)),
    ("NOT NOT Modality:CT", Not(Not(CT))),
    ("NOT (Modality:CT OR Modality:MR)", Not(Or((CT, MR)))),
    ("Modality:CT OR Modality:MR AND axial", Or((CT, And((MR, Text("axial")))))),
    ("(Modality:CT OR Modality:MR) AND axial", And((Or((CT, MR)), Text("axial")))),
    ("axial epi*", And((Text("axial"), Text("epi", prefix=True)))),
    ('"axial epi"', Text("axial epi")),
    ('"axial e"*', Text("axial e", prefix=True)),
    ("exists:EchoTime", Exists("EchoTime")),
    ("_exists_:EchoTime", Exists("EchoTime")),
    ("EchoTime:*", Exists("EchoTime")),
    ("RequestedProcedureCodeSequence.CodeValue:A1", Term("RequestedProcedureCodeSequence.CodeValue", "A1")),
    ("00091001:x", Term("00091001", "x")),
    ("PatientName:Yamada^Tarou=山田^太郎", Term("PatientName", "Yamada^Tarou=山田^太郎")),
    ('Modality:"AND"', Text("AND", field="Modality")),
    ("Modality:A\\*B", Term("Modality", "A*B")),
    ("  Modality:CT  ", CT),
    ("Modality:CT\nModality:MR", And((CT, MR))),
    ("ORAL", Text("ORAL")),
    ("NOTE:x", Term("NOTE", "x")),
    ("3-pl", Text("3-pl")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tree"), EXAMPLES, ids=[text for text, _ in EXAMPLES])
def test_text_means_its_tree(text, tree):
    assert parse(text) == tree


MISTAKES = [
    ("", 0),
    ("   ", 3),
    ("Modality:", 9),
    ("Modality: AND x", 10),
    ("Modality:CT AND", 15),
    ("AND Modality:CT", 0),
    ("Modality:CT OR OR x", 15),
    ("NOT", 3),
    ("Modality:CT and Modality:MR", 12),
    ("(Modality:CT", 0),
    ("Modality:CT)", 11),
    ("Modality:(CT OR MR", 9),
    ("()", 1),
    ("PatientAge:[40 60]", 15),
    ("PatientAge:[40 TO 60", 11),
    ("PatientAge:[40 TO]", 17),
    ("PatientAge:[TO 60]", 12),
    ("PatientAge:40]", 13),
    ("EchoTime:>=", 11),
    ("EchoTime:>*", 10),
    ('SeriesDescription:"axial', 18),
    ('SeriesDescription:""', 18),
    ('x "', 2),
    (":CT", 0),
    ("Mod-ality:CT", 0),
    ("a..b:CT", 0),
    ("exists:", 7),
    ("Series:e*i", 8),
    ("x\\", 1),
    ("Modality : CT", 9),
]


@pytest.mark.parametrize(("text", "position"), MISTAKES, ids=[text or "empty" for text, _ in MISTAKES])
def test_mistake_is_pointed_at(text, position):
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert (caught.value.text, caught.value.position) == (text, position)
    assert str(caught.value).endswith("^")


def test_a_mistake_in_a_long_query_is_shown_with_what_is_around_it():
    text = "\n".join(f"Rows:{number}" for number in range(100)) + " AND"
    with pytest.raises(QueryError) as caught:
        parse(text)
    reason, shown, mark = str(caught.value).split("\n")
    assert reason == f"a value or a word is missing at character {len(text) + 1}"
    assert shown.startswith("  ... ") and shown.endswith("Rows:98 Rows:99 AND")
    assert mark == " " * len(shown) + "^"


def test_nesting_has_a_limit_and_length_has_not_much_of_one():
    with pytest.raises(QueryError, match="nested"):
        parse("(" * 5000 + "x" + ")" * 5000)
    with pytest.raises(QueryError, match="nested"):
        parse("NOT " * 5000 + "x")
    tree = parse(" OR ".join(f"SeriesInstanceUID:1.2.{n}" for n in range(10_000)))
    assert len(tree.operands) == 10_000


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["AND", "to", "Not", "*", "=", '"', "\\", "a b", "[", ">=1", ":", "axial", "2020-01-01", "-1.5e3", "x=y", "a:b"]
)
fields = st.from_regex(r"[A-Za-z0-9_]{1,6}(\.[A-Z]{1,3})?", fullmatch=True).filter(
    lambda n: n not in ("exists", "_exists_")
)
bounds = st.none() | texts
leaves = st.one_of(
    st.just(All()),
    st.builds(Term, fields, texts),
    st.builds(Prefix, fields, texts),
    st.builds(Range, fields, texts, bounds, st.booleans(), st.booleans()),
    st.builds(Range, fields, st.none(), texts, st.booleans(), st.booleans()),
    st.builds(Text, texts, st.none() | fields, st.booleans()),
    st.builds(Exists, fields),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(tree=trees)
def test_text_of_a_tree_parses_back_to_it(tree):
    assert parse(str(tree)) == tree


@settings(max_examples=500, deadline=None)
@given(text=st.text(st.sampled_from('abAND ORTO:()[]{}"*\\<>=.-1'), max_size=25))
def test_any_text_is_a_tree_or_a_mistake_with_a_place(text):
    try:
        tree = parse(text)
    except QueryError as exc:
        assert 0 <= exc.position <= len(text)
        return
    assert parse(str(tree)) == tree
