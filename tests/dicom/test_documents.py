"""The document of a series: natural types, every character set, and nothing sinks it."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kaapana_assets.dicom.documents import series_document
from kaapana_assets.dicom.headers import read_header
from kaapana_assets.errors import InputError, UnreadableDicom

ARRIVAL = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))


def document(*headers, **arguments):
    made = series_document(headers, arrival_time=ARRIVAL, **arguments)
    json.dumps(made, allow_nan=False).encode("utf-8")
    return made


@pytest.fixture
def saved_document(tmp_path, dataset, save):
    """The document of one instance whose attributes are written as given, however malformed."""

    def make(elements, syntax=ExplicitVRLittleEndian, **attributes):
        ds = dataset(**attributes)
        path = save(ds, tmp_path / "a.dcm", transfer_syntax=syntax)
        with path.open("ab") as file:
            for tag, vr, raw in sorted(elements):
                value = raw + b" " * (len(raw) % 2)
                head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
                if syntax == ImplicitVRLittleEndian:
                    head += len(value).to_bytes(4, "little")
                elif vr in ("UT", "UN", "UC", "SQ", "SV", "UV"):
                    head += vr.encode() + b"\0\0" + len(value).to_bytes(4, "little")
                else:
                    head += vr.encode() + len(value).to_bytes(2, "little")
                file.write(head + value)
        return document(read_header(path))

    return make


VALUES = [
    ("date", 0x00400244, "DA", b"20200229", "PerformedProcedureStepStartDate", "2020-02-29"),
    ("old-date", 0x00400244, "DA", b"2020.02.29", "PerformedProcedureStepStartDate", "2020-02-29"),
    ("no-date", 0x00400244, "DA", b"20200230", "PerformedProcedureStepStartDate_text", "20200230"),
    ("time", 0x00400245, "TM", b"101530.5", "PerformedProcedureStepStartTime", "10:15:30.500000"),
    ("hour", 0x00400245, "TM", b"10", "PerformedProcedureStepStartTime", "10:00:00.000000"),
    ("old-time", 0x00400245, "TM", b"10:15:30", "PerformedProcedureStepStartTime", "10:15:30.000000"),
    ("no-time", 0x00400245, "TM", b"256161", "PerformedProcedureStepStartTime_text", "256161"),
    ("datetime", 0x00404011, "DT", b"20200229101530.25", "ExpectedCompletionDateTime", "2020-02-29T10:15:30.250000"),
    ("offset", 0x00404011, "DT", b"202002291015-0330", "ExpectedCompletionDateTime",
     "2020-02-29T10:15:00.000000-03:30"),
    ("month", 0x00404011, "DT", b"202002", "ExpectedCompletionDateTime", "2020-02"),
    ("no-datetime", 0x00404011, "DT", b"yesterday", "ExpectedCompletionDateTime_text", "yesterday"),
    ("ds", 0x00541300, "DS", b" 1.50 ", "FrameReferenceTime", 1.5),
    ("ds-many", 0x00541300, "DS", b"1\\2.5\\-3e1", "FrameReferenceTime", [1.0, 2.5, -30.0]),
    ("no-ds", 0x00541300, "DS", b"1,5", "FrameReferenceTime_text", "1,5"),
    ("no-ds-among", 0x00541300, "DS", b"1\\x", "FrameReferenceTime_text", ["1", "x"]),
    ("nan", 0x00541300, "DS", b"NaN", "FrameReferenceTime_text", "NaN"),
    ("us", 0x00541330, "US", b"\x07\x00", "ImageIndex", 7),
    ("no-is", 0x00280008, "IS", b"many", "NumberOfFrames_text", "many"),
    ("is", 0x00280008, "IS", b"12", "NumberOfFrames", 12),
    ("is-padded", 0x00280008, "IS", b" 12 ", "NumberOfFrames", 12),
    ("is-fraction", 0x00181152, "IS", b"14.7", "Exposure", 14.7),
    ("is-whole-fraction", 0x00181152, "IS", b"14.0", "Exposure", 14),
    ("is-fraction-among", 0x00181152, "IS", b"3\\2.5", "Exposure", [3, 2.5]),
    ("is-exponent", 0x00181152, "IS", b"1e2", "Exposure_text", "1e2"),
    ("is-25-digits", 0x00181152, "IS", b"1234567890123456789012345", "Exposure_text", "1234567890123456789012345"),
    ("is-no-double", 0x00181152, "IS", b"9007199254740993", "Exposure_text", "9007199254740993"),
    ("is-underscore", 0x00181152, "IS", b"1_000", "Exposure_text", "1_000"),
    ("is-letter", 0x00181152, "IS", b"1A", "Exposure_text", "1A"),
    ("is-bad-among", 0x00181152, "IS", b"3\\1A\\4", "Exposure_text", ["3", "1A", "4"]),
    ("ds-underscore", 0x00541300, "DS", b"1_000", "FrameReferenceTime_text", "1_000"),
    ("ds-infinite", 0x00541300, "DS", b"1e400", "FrameReferenceTime_text", "1e400"),
    ("ds-inf", 0x00541300, "DS", b"inf", "FrameReferenceTime_text", "inf"),
    ("ds-too-small", 0x00541300, "DS", b"1e-400", "FrameReferenceTime_text", "1e-400"),
    ("ds-17-digits", 0x00541300, "DS", b"0.30000000000000004", "FrameReferenceTime", 0.30000000000000004),
    ("ds-20-digits", 0x00541300, "DS", b"0.12345678901234567890", "FrameReferenceTime_text", "0.12345678901234567890"),
    ("ds-large", 0x00541300, "DS", b"12345678901234567890", "FrameReferenceTime_text", "12345678901234567890"),
    ("ds-nan-among", 0x00541300, "DS", b"1\\nan\\2", "FrameReferenceTime_text", ["1", "nan", "2"]),
    ("uv", 0x00291001, "UV", (2**53).to_bytes(8, "little"), "00291001", 2**53),
    ("uv-no-double", 0x00291001, "UV", b"\xff" * 8, "00291001_text", "18446744073709551615"),
    ("sv-no-double", 0x00291001, "SV", (-(2**63)).to_bytes(8, "little", signed=True), "00291001_text", str(-(2**63))),
    ("ul", 0x00291001, "UL", b"\xff" * 4, "00291001", 2**32 - 1),
    ("sl", 0x00291001, "SL", b"\xff" * 4, "00291001", -1),
    ("fl-nan", 0x00291001, "FL", b"\0\0\xc0\x7f", "00291001_text", "nan"),
    ("fd-inf", 0x00291001, "FD", b"\0\0\0\0\0\0\xf0\x7f", "00291001_text", "inf"),
    ("date-range", 0x00400244, "DA", b"20200101-20200131", "PerformedProcedureStepStartDate_text", "20200101-20200131"),
    ("time-range", 0x00400245, "TM", b"10-12", "PerformedProcedureStepStartTime_text", "10-12"),
    ("no-offset", 0x00404011, "DT", b"20200229101530+2500", "ExpectedCompletionDateTime_text", "20200229101530+2500"),
    ("tags", 0x00280009, "AT", b"\x18\0\x63\x10\x18\0\x64\x10", "FrameIncrementPointer", ["00181063", "00181064"]),
    ("person-groups", 0x00400006, "PN", b"a==c=d", "ScheduledPerformingPhysicianName", "a==c=d"),
    ("tag", 0x00280009, "AT", b"\x18\x00\x63\x10", "FrameIncrementPointer", "00181063"),
    ("empty", 0x00280008, "IS", b"", "NumberOfFrames", None),
    ("private-text", 0x00290010, "LO", b"ACME 1.1", "00290010", "ACME 1.1"),
    ("private-unknown-text", 0x00291001, "UN", b"hello", "00291001", "hello"),
    ("private-binary", 0x00291001, "UN", b"\x00\xff\x01\x80", "00291001", None),
    ("private-double", 0x00291001, "FD", b"\0\0\0\0\0\0\xf8\x3f", "00291001", 1.5),
    ("wrong-length", 0x00291001, "FD", b"abc", "00291001_text", "abc"),
    ("unlimited-text", 0x0040A160, "UT", b"a\\b", "TextValue", "a\\b"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "vr", "raw", "name", "value"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_value_has_its_natural_type(saved_document, tag, vr, raw, name, value):
    made = saved_document([(tag, vr, raw)])
    assert made.get(name) == value
    assert type(made.get(name)) is type(value)


@pytest.mark.parametrize(
    ("age", "years"), [("045Y", 45.0), ("018M", 1.5), ("010W", 0.1916), ("003D", 0.0082), ("45", None), ("abcd", None)]
)
def test_age_is_years_and_its_text(dataset, age, years):
    made = document(dataset(PatientAge=age))
    assert made.get("PatientAge") == years
    assert made["PatientAge_text"] == age


def test_sequences_are_complete_and_nested(dataset):
    inner = Dataset()
    inner.CodeValue = "T-1"
    items = []
    for number in range(400):
        item = Dataset()
        item.ReferencedSOPInstanceUID = f"1.2.{number}"
        item.PurposeOfReferenceCodeSequence = Sequence([inner])
        items.append(item)
    made = document(dataset(ReferencedImageSequence=Sequence(items), ReferencedStudySequence=Sequence([])))
    assert len(made["ReferencedImageSequence"]) == 400
    assert made["ReferencedImageSequence"][399] == {
        "ReferencedSOPInstanceUID": "1.2.399",
        "PurposeOfReferenceCodeSequence": [{"CodeValue": "T-1"}],
    }
    assert "ReferencedStudySequence" not in made


NAMES = {
    "chrArab.dcm": "قباني^لنزار",
    "chrFren.dcm": "Buc^Jérôme",
    "chrFrenMulti.dcm": "Buc^Jérôme",
    "chrGerm.dcm": "Äneas^Rüdiger",
    "chrGreek.dcm": "Διονυσιος",
    "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32.dcm": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw.dcm": "שרון^דבורה",
    "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrJapMulti.dcm": "やまだ^たろう",
    "chrJapMultiExplicitIR6.dcm": "やまだ^たろう",
    "chrKoreanMulti.dcm": "김희중",
    "chrRuss.dcm": "Люкceмбypг",  # noqa: RUF001
    "chrX1.dcm": "Wang^XiaoDong=王^小東",
    "chrX2.dcm": "Wang^XiaoDong=王^小东",
}


@pytest.mark.parametrize("name", NAMES)
def test_person_name_is_readable_in_every_character_set(pydicom_files, name):
    assert document(read_header(pydicom_files / "charset_files" / name))["PatientName"] == NAMES[name]


def test_person_name_in_a_sequence_has_the_character_set_of_its_item(pydicom_files):
    made = document(read_header(pydicom_files / "charset_files" / "chrSQEncoding.dcm"))
    assert made["RequestedProcedureCodeSequence"][0]["PatientName"] == "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"


def test_every_readable_file_has_a_document(pydicom_files):
    made = 0
    for path in sorted(pydicom_files.rglob("*")):
        try:
            header = read_header(path)
        except UnreadableDicom:
            continue
        assert document(header)["InstanceCount"] == 1
        made += 1
    assert made > 100


def test_arrival_time_is_utc_and_count_can_be_given(dataset):
    made = document(dataset(), instance_count=7)
    assert (made["ArrivalTime"], made["InstanceCount"]) == ("2024-05-06T05:08:09.000000Z", 7)


@pytest.mark.parametrize(("headers", "time"), [([], ARRIVAL), ([Dataset()], ARRIVAL.replace(tzinfo=None))],
                         ids=["no-instance", "no-time-zone"])  # fmt: skip
def test_document_needs_an_instance_and_a_time_zone(headers, time):
    with pytest.raises(InputError):
        series_document(headers, arrival_time=time)


def test_first_instance_gives_the_values_whatever_the_order(dataset):
    headers = [
        dataset(InstanceNumber=10, SOPInstanceUID="1.1", SeriesDescription="c"),
        dataset(InstanceNumber=2, SOPInstanceUID="1.9", SeriesDescription="b"),
        dataset(InstanceNumber=2, SOPInstanceUID="1.8", SeriesDescription="a", ImageComments="only here"),
        dataset(SOPInstanceUID="1.0", SeriesDescription="d"),
    ]
    for order in (headers, headers[::-1]):
        made = document(*order)
        assert (made["SeriesDescription"], made["SOPInstanceUID"]) == ("a", "1.8")
        assert made["VaryingKeywords"] == ["ImageComments", "SOPInstanceUID", "SeriesDescription"]
        assert made["InstanceNumber_range"] == {"min": 2, "max": 10}


def test_values_of_all_instances_are_ranges_and_sets(dataset):
    made = document(
        *(
            dataset(
                SOPInstanceUID=f"1.{z}",
                SliceLocation=z,
                SliceThickness=2.5,
                AcquisitionTime=f"10150{z}",
                EchoNumbers=z % 2,
                ImagePositionPatient=[1, 2, z],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImageType=["O", "P", f"M{z % 2}"],
            )
            for z in range(5)
        )
    )
    assert made["SliceLocation_range"] == {"min": 0.0, "max": 4.0}
    assert made["SliceThickness_range"] == {"min": 2.5, "max": 2.5}
    assert made["SlicePosition_range"] == {"min": 0.0, "max": 4.0}
    assert made["AcquisitionTime_range"] == {"min": "10:15:00.000000", "max": "10:15:04.000000"}
    assert made["EchoNumbers_values"] == [0, 1]
    assert made["ImageType_values"] == ["M0", "M1", "O", "P"]
    assert made["VaryingKeywords"] == ["ImagePositionPatient", "SOPInstanceUID"]


def test_range_holds_whole_numbers_and_fractions_of_integer_strings(saved_document, tmp_path, dataset, save):
    headers = []
    for number, exposure in enumerate((b"14.5", b"2.9 ", b"7 ", b"1A")):
        path = save(dataset(SOPInstanceUID=f"1.{number}"), tmp_path / f"{number}.dcm")
        with path.open("ab") as file:
            file.write(b"\x18\0\x52\x11IS" + len(exposure).to_bytes(2, "little") + exposure)
        headers.append(read_header(path))
    made = document(*headers)
    assert made["Exposure_range"] == {"min": 2.9, "max": 14.5}
    assert made["Exposure"] == 14.5


def test_ambiguous_integer_is_signed_where_pixels_are(tmp_path, dataset, save):
    ds = dataset(PixelRepresentation=1, SmallestImagePixelValue=-1024)
    path = save(ds, tmp_path / "a.dcm", transfer_syntax=ImplicitVRLittleEndian)
    assert document(read_header(path))["SmallestImagePixelValue"] == -1024


def test_tag_that_is_cut_is_named_and_no_value(saved_document):
    made = saved_document([(0x00280009, "AT", b"\x18\0\x63\x10\x18\0")])
    assert "FrameIncrementPointer" not in made
    assert made["UnreadableKeywords"] == ["FrameIncrementPointer"]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"])
def test_megabyte_of_text_is_cut_and_said(saved_document, syntax):
    made = saved_document([(0x0040A160, "UT", b"x" * 1_000_000)], syntax)
    assert made["TextValue"] == "x" * 8192
    assert made["TruncatedKeywords"] == ["TextValue"]


def test_long_lists_are_cut_where_they_are_and_said(dataset):
    contour = Dataset()
    contour.ContourData = [float(n) for n in range(3000)]
    roi = Dataset()
    roi.ContourSequence = Sequence([contour])
    made = document(dataset(ROIContourSequence=Sequence([roi])))
    assert made["ROIContourSequence"][0]["ContourSequence"][0]["ContourData"] == [float(n) for n in range(256)]
    assert made["TruncatedKeywords"] == ["ROIContourSequence.ContourSequence.ContourData"]


def test_unreadable_attribute_is_named_and_the_rest_is_there(saved_document):
    made = saved_document([(0x00291001, "FD", b"\x00\x01\x02"), (0x0040A160, "UT", b"fine")])
    assert made["UnreadableKeywords"] == ["00291001"]
    assert made["TextValue"] == "fine"


def test_two_overlays_are_both_there(dataset):
    ds = dataset()
    ds.add_new(0x60000010, "US", 10)
    ds.add_new(0x60020010, "US", 20)
    made = document(ds)
    assert (made["OverlayRows"], made["60020010"]) == (10, 20)


def test_real_series_has_its_document(shared_data):
    paths = sorted((shared_data / "mr_epi" / "mr_0004").glob("*.dcm")) or [
        path for path in sorted((shared_data / "mr_epi" / "mr_0004").iterdir()) if path.suffix != ".txt"
    ]
    made = document(*(read_header(path) for path in paths))
    assert (made["Modality"], made["InstanceCount"], made["EchoTime"]) == ("MR", 150, 30.0)
    assert made["InstanceNumber_range"] == {"min": 1, "max": 150}
    assert made["StudyDate"].count("-") == 2
