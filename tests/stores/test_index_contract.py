"""The promises of the metadata index, for every implementation of it."""

import importlib.util
import json
import threading
import unicodedata
import uuid
from pathlib import Path

import pytest

from kaapana_assets.errors import InputError, InvalidIdentifier, NotFound
from kaapana_assets.stores.elastic_index import ElasticConnection, ElasticIndex
from kaapana_assets.stores.index.protocol import (
    Bucket,
    DateHistogramFacet,
    HistogramFacet,
    MetadataIndex,
    SortKey,
    TermsFacet,
)
from kaapana_assets.stores.query import All, Or, Term, parse
from kaapana_assets.stores.sqlite_index import SqliteIndex

# Tests are no package; the contract's table lies beside this file.
_spec = importlib.util.spec_from_file_location("index_contract", Path(__file__).with_name("index_contract.py"))
contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(contract)
A, B, C, D = contract.A, contract.B, contract.C, contract.D


@pytest.fixture(scope="module")
def on_server(elasticsearch_server):
    """Indices on the server by their settings: one for all tests, made empty, because making one takes a second."""
    made = {}

    def opened(**chosen):
        if str(chosen) not in made:
            url = elasticsearch_server.settings["KAAPANA_ELASTICSEARCH_URLS"]
            connection = ElasticConnection(urls=(url,), index=f"test-{uuid.uuid4().hex}", replicas=0, **chosen)
            made[str(chosen)] = ElasticIndex(connection)
        index = made[str(chosen)]
        index.delete(index.series(All()))
        return index

    yield opened
    for index in made.values():
        index.close()


IMPLEMENTATIONS = {
    "sqlite": lambda request: SqliteIndex(request.getfixturevalue("tmp_path") / "index.sqlite"),
    "elasticsearch": lambda request: request.getfixturevalue("on_server")(),
    # All fields but a few lie in the one that takes the rest: only histograms may tell.
    "elasticsearch, few fields": lambda request: request.getfixturevalue("on_server")(fields=2),
}


@pytest.fixture(
    params=[
        pytest.param(made, id=name, marks=[] if name == "sqlite" else pytest.mark.services)
        for name, made in IMPLEMENTATIONS.items()
    ]
)
def empty(request):
    index: MetadataIndex = request.param(request)
    yield index
    if isinstance(index, SqliteIndex):
        index.close()


@pytest.fixture
def index(empty):
    empty.put(contract.DOCUMENTS)
    return empty


@pytest.mark.parametrize(("text", "expected"), contract.MATCHES, ids=[text for text, _ in contract.MATCHES])
def test_query_finds_the_series_it_says(index, text, expected):
    query = parse(text)
    assert list(index.series(query)) == sorted(expected)
    assert index.count(query) == len(expected)
    page = index.search(query)
    assert [document["SeriesInstanceUID"] for document in page.documents] == sorted(expected)
    assert (page.total, page.next_cursor) == (len(expected), None)


def test_document_comes_back_as_it_was(index):
    for document in contract.DOCUMENTS:
        found = index.get(document["SeriesInstanceUID"])
        assert json.dumps(found) == json.dumps(document)


def test_empty_index_answers(empty):
    assert (empty.count(All()), list(empty.series(All())), empty.search(All()).documents) == (0, [], ())
    assert empty.facets(parse("Modality:CT"), [TermsFacet("Modality")]) == [[]]
    with pytest.raises(NotFound, match=r"9\.9"):
        empty.get("9.9")


def test_put_replaces_the_document_of_the_series(index):
    index.put([{"SeriesInstanceUID": A, "Modality": "PT", "SeriesDescription": "new words"}])
    assert index.get(A) == {"SeriesInstanceUID": A, "Modality": "PT", "SeriesDescription": "new words"}
    assert index.count(All()) == 4
    for text in ("Modality:CT", "neck", "PatientAge:45", "exists:RequestAttributesSequence"):
        assert contract.uids(index, text) == [], text
    for text in ("Modality:PT", "words", A):
        assert contract.uids(index, text) == [A], text


def test_last_of_two_documents_of_a_series_in_one_put_stays(empty):
    empty.put([{"SeriesInstanceUID": "1.1", "Modality": modality} for modality in ("CT", "MR")])
    assert (contract.uids(empty, "Modality:CT"), contract.uids(empty, "Modality:MR")) == ([], ["1.1"])


def test_deleted_series_is_not_found_any_more(index):
    index.delete([A, "9.9"])
    with pytest.raises(NotFound):
        index.get(A)
    assert contract.uids(index, "*") == sorted([B, C, D])
    assert contract.uids(index, "neck OR Modality:CT") == []
    index.put(contract.DOCUMENTS[:1])
    assert contract.uids(index, "neck") == [A]


@pytest.mark.parametrize("document", [{}, {"SeriesInstanceUID": "../x"}, {"SeriesInstanceUID": None}])
def test_document_needs_a_series_instance_uid(empty, document):
    with pytest.raises(InvalidIdentifier):
        empty.put([document])
    assert empty.count(All()) == 0


SORTS = [
    ((), [A, D, B, C]),
    ((SortKey("PatientAge"),), [C, A, B, D]),
    ((SortKey("PatientAge", descending=True),), [B, A, C, D]),
    ((SortKey("StudyDate", descending=True),), [D, C, B, A]),
    ((SortKey("StudyDate", descending=True), SortKey("Modality")), [C, D, B, A]),
    ((SortKey("SeriesDescription"),), [A, B, C, D]),
    ((SortKey("Nothing"), SortKey("Rows")), [B, C, A, D]),
    ((SortKey("ImageType"),), [A, D, B, C]),
]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 50])
@pytest.mark.parametrize(
    ("sort", "expected"), SORTS, ids=[" ".join(key.field for key in s) or "none" for s, _ in SORTS]
)
def test_pages_in_order_hold_every_series_once(index, sort, expected, limit):
    found, after = [], None
    while True:
        page = index.search(All(), sort=sort, limit=limit, after=after)
        assert page.total == 4
        assert len(page.documents) <= limit
        found += [document["SeriesInstanceUID"] for document in page.documents]
        after = page.next_cursor
        if after is None:
            break
    assert found == expected


def test_page_after_a_change_goes_on_where_it_was(index):
    first = index.search(All(), limit=2)
    index.delete([A])
    index.put([{"SeriesInstanceUID": "1.2.840.0"}])
    second = index.search(All(), limit=2, after=first.next_cursor)
    assert [document["SeriesInstanceUID"] for document in second.documents] == [B, C]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_page_size_has_bounds(index, limit):
    with pytest.raises(InputError):
        index.search(All(), limit=limit)


def test_cursor_of_another_sort_or_no_cursor_is_refused(index):
    cursor = index.search(All(), limit=1).next_cursor
    for after, sort in [(cursor, [SortKey("Rows")]), ("nonsense", []), ("", [])]:
        with pytest.raises(InputError, match="cursor"):
            index.search(All(), sort=sort, after=after)


FACETS = [
    (TermsFacet("Modality"), "*", [("MR", 2), ("CT", 1), ("SR", 1)]),
    (TermsFacet("Modality", size=1), "*", [("MR", 2)]),
    (TermsFacet("Modality"), "exists:EchoTime", [("MR", 2)]),
    (TermsFacet("ImageType"), "*", [("AXIAL", 1), ("ORIGINAL", 1), ("PRIMARY", 1)]),
    (TermsFacet("Rows"), "*", [(64, 1), (256, 1), (512, 1)]),
    (TermsFacet("RequestAttributesSequence.ScheduledProcedureStepID"), "*", [("A1", 1), ("A2", 1)]),
    (TermsFacet("Nothing"), "*", []),
    (TermsFacet("Modality"), "Modality:XX", []),
    (HistogramFacet("PatientAge", 10), "*", [(0, 1), (40, 1), (60, 1)]),
    (HistogramFacet("PatientAge", 10), "Modality:MR", [(0, 1), (60, 1)]),
    (HistogramFacet("PatientAge", 0.5), "PatientAge:<10", [(7.5, 1)]),
    (HistogramFacet("Modality", 10), "*", []),
    (DateHistogramFacet("StudyDate", "year"), "*", [("2020", 2), ("2021", 2)]),
    (DateHistogramFacet("StudyDate", "month"), "*", [("2020-01", 1), ("2020-06", 1), ("2021-12", 2)]),
    (DateHistogramFacet("StudyDate", "day"), "Modality:MR", [("2020-06-30", 1), ("2021-12-31", 1)]),
    (DateHistogramFacet("AcquisitionDateTime", "day"), "*", [("2020-06-30", 1)]),
    (DateHistogramFacet("Modality", "day"), "*", []),
]


def has_histograms(index):
    """Whether fields have their types; those in the one that takes the rest have no histograms."""
    return not (isinstance(index, ElasticIndex) and index.typed_fields < 10)


@pytest.mark.parametrize(("facet", "text", "expected"), FACETS, ids=[f"{f} {t}" for f, t, _ in FACETS])
def test_facet_counts_series(index, facet, text, expected):
    if not has_histograms(index) and not isinstance(facet, TermsFacet):
        expected = []
    assert index.facets(parse(text), [facet]) == [[Bucket(key, count) for key, count in expected]]


def test_facets_come_in_the_order_asked_for(index):
    asked = [
        (facet, buckets)
        for facet, text, buckets in FACETS
        if text == "*" and (has_histograms(index) or isinstance(facet, TermsFacet))
    ]
    facets = [facet for facet, _ in asked]
    expected = [[Bucket(*pair) for pair in buckets] for _, buckets in asked]
    assert index.facets(parse("*"), facets) == expected


def test_series_with_several_values_in_one_bucket_counts_once(empty):
    empty.put([{"SeriesInstanceUID": "1.1", "EchoTime": [11.0, 12.0, -1.5], "D": ["2020-01-01", "2020-01-02"]}])
    numbers, dates = empty.facets(All(), [HistogramFacet("EchoTime", 10), DateHistogramFacet("D", "month")])
    if has_histograms(empty):
        assert numbers == [Bucket(-10, 1), Bucket(10, 1)]
        assert dates == [Bucket("2020-01", 1)]


@pytest.mark.parametrize(
    "facet", [TermsFacet("Modality", size=0), HistogramFacet("Rows", 0), HistogramFacet("Rows", -1)]
)
def test_facet_without_size_is_refused(index, facet):
    with pytest.raises(InputError):
        index.facets(All(), [facet])


def test_more_than_ten_thousand_series_are_all_there(empty):
    expected = sorted(f"1.2.{number}" for number in range(12_000))
    empty.put({"SeriesInstanceUID": uid, "Modality": "MR"} for uid in expected)
    assert list(empty.series(parse("Modality:MR"))) == expected
    chosen = Or(tuple(Term("SeriesInstanceUID", uid) for uid in expected[:11_000]))
    assert empty.count(chosen) == 11_000
    mixed = parse(
        " OR ".join(
            f"SeriesInstanceUID:{uid}" if n % 2 else f"NOT Modality:X{n}" for n, uid in enumerate(expected[:3000])
        )
    )
    assert empty.count(mixed) == 12_000


def test_odd_values_are_kept_and_found(empty):
    document = {
        "SeriesInstanceUID": "1.1",
        "Huge": 2**70,
        "Small": -1e-300,
        "Empty": "",
        "Nothing": None,
        "List": [],
        "Text": 'quote " back\\slash % _ * 50%',
        "Flag": True,
        "Many": [{"x": n} for n in range(5000)],
        "Newlines": "first\nsecond",
    }
    empty.put([document])
    assert empty.get("1.1") == document
    found = [f"Huge:{2**70}", "Huge:>1e20", "Small:<0", str(Term("Text", document["Text"])), 'Text:"slash 50"']
    found += ["Flag:true", "Many.x:999", '"first second"']
    for text in found:
        assert empty.count(parse(text)) == 1, text
    for text in ("exists:Empty", "exists:Nothing", "exists:List", 'Text:="quote %"*'):
        assert empty.count(parse(text)) == 0, text


COMPOSED = "Müller^Renée=Å"
APART = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize("asked", [COMPOSED, APART], ids=["asked in one character", "asked in two"])
def test_text_is_found_whether_accents_are_one_character_with_their_letter_or_two(empty, asked):
    documents = [
        {"SeriesInstanceUID": "1.1", "PatientName": COMPOSED, "Long": COMPOSED * 20, "Item": [{"Name": COMPOSED}]},
        {"SeriesInstanceUID": "1.2", "PatientName": APART, "Long": APART * 20, "Item": [{"Name": APART}]},
        {"SeriesInstanceUID": "1.3", "PatientName": "Muller^Renee=A"},
    ]
    empty.put(documents)
    upper, both = asked.upper(), ["1.1", "1.2"]
    last, first = asked.partition("=")[0].split("^")
    for text in (
        f'PatientName:="{asked}"', f'PatientName:="{upper}"', f'Item.Name:="{asked}"', f'Long:="{asked * 20}"',
        f"PatientName:{last}*", f'PatientName:"{last} {first}"', f"{last}", "ren*",
        f'PatientName:["{asked}" TO "{asked}"]', f"PatientName:(x OR {last}*)",
    ):  # fmt: skip
        found = contract.uids(empty, text)
        assert found == (both if text != "ren*" else [*both, "1.3"]), text
    assert empty.facets(All(), [TermsFacet("Item.Name")]) == [[Bucket(COMPOSED, 2)]]
    assert [empty.get(document["SeriesInstanceUID"]) for document in documents] == documents
    empty.put([{"SeriesInstanceUID": "1.2", "PatientName": "Other"}])
    assert contract.uids(empty, f'PatientName:="{asked}"') == ["1.1"]


def test_threads_put_and_search_at_once(empty):
    failures = []

    def work(worker):
        try:
            for number in range(20):
                empty.put([{"SeriesInstanceUID": f"1.{worker}.{number}", "Modality": "MR", "Worker": worker}])
                assert empty.count(Term("Worker", str(worker))) == number + 1
        except Exception as exc:  # noqa: BLE001 - shown by the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert empty.count(parse("Modality:MR")) == 80


def test_forgotten_documents_are_gone_and_can_come_again(index):
    index.forget([A, "1.2.840.999"])
    assert list(index.series(All())) == sorted([B, C, D])
    assert index.count(parse("tarou")) == 0
    index.forget([A])
    index.put(contract.DOCUMENTS[:1])
    assert list(index.series(parse("tarou"))) == [A]
