"""Bodies of many files, cut anywhere on their way, and without being held in memory."""

import tracemalloc

import pytest

from kaapana_assets.stores.pacs.remote.multipart import MultipartFiles, boundary_of, write_parts

CONTENTS = [b"", b"\r\n", b"--", b"a\r\n--not-the-boundary\r\n\r\n", bytes(range(256)) * 5, b"\r\n--"]


def body_of(tmp_path, contents):
    files = []
    for number, content in enumerate(contents):
        (tmp_path / f"source-{number}").write_bytes(content)
        files.append(tmp_path / f"source-{number}")
    body = MultipartFiles(files)
    sent = b"".join(body)
    assert len(body) == len(sent)
    return sent, boundary_of(body.content_type)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 41, 100, 10**6])
def test_files_come_back_however_the_body_is_cut_into_pieces(tmp_path, size):
    sent, boundary = body_of(tmp_path, CONTENTS)
    (tmp_path / "out").mkdir()
    pieces = (sent[at : at + size] for at in range(0, len(sent), size))
    assert [path.read_bytes() for path in write_parts(pieces, boundary, tmp_path / "out")] == CONTENTS


@pytest.mark.parametrize("missing", [3, 50, 400])
def test_a_body_that_ends_early_is_an_error(tmp_path, missing):
    sent, boundary = body_of(tmp_path, CONTENTS)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="ends before"):
        write_parts([sent[:-missing]], boundary, tmp_path / "out")


def test_a_preamble_and_other_headers_are_passed_over(tmp_path):
    body = b"words\r\n--b x\r\nContent-Length: 3\r\nMIME-Version: 1.0\r\n\r\nabc\r\n--b\r\n\r\n\r\n--b--\r\nend"
    assert [path.read_bytes() for path in write_parts([body], b"b", tmp_path)] == [b"abc", b""]


def test_memory_holds_a_piece_of_the_body_only(tmp_path):
    def pieces():
        yield b"--b\r\n\r\n"
        for _ in range(64):
            yield bytes(1 << 20)
        yield b"\r\n--b--"

    tracemalloc.start()
    try:
        (path,) = write_parts(pieces(), b"b", tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == 64 << 20
    assert peak < 6 << 20


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', b"a b"),
        ("multipart/related; boundary=abc; type=application/dicom", b"abc"),
        ("application/dicom", None),
        ("", None),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type, boundary):
    assert boundary_of(content_type) == boundary
