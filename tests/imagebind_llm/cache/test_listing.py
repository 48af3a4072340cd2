"""Pictures of folders, lists and tar files are found in one order, and again by name."""

import io
import tarfile

import pytest

from imagebind_llm.cache.listing import listing, open_picture
from llama_adapter import UserError


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def read_all(found):
    contents = []
    for number, place in enumerate(found.places):
        with found.open(number) as file, open_picture(found.root, place.name) as again:
            contents.append(file.read())
            assert contents[-1] == again.read()
    return contents


def test_a_folder(tmp_path):
    fill(tmp_path, "b.JPG", "a.png", "c/d.webp", "notes.txt", "c/labels.json")
    found = listing(tmp_path)
    assert [place.name for place in found.places] == ["a.png", "b.JPG", "c/d.webp"]
    assert read_all(found) == [b"a.png", b"b.JPG", b"c/d.webp"]


def test_a_list_keeps_its_order(tmp_path):
    fill(tmp_path, "x/b.png", "a.png")
    (tmp_path / "list.txt").write_text("x/b.png\n\n a.png \n")
    assert read_all(listing(tmp_path / "list.txt")) == [b"x/b.png", b"a.png"]


def test_tar_files(tmp_path):
    fill(tmp_path / "in", "1.jpg", "1.txt", "2.png", "3.jpeg")
    (tmp_path / "tars").mkdir()
    for archive, names in {"b.tar": ["3.jpeg"], "a.tar": ["2.png", "1.jpg", "1.txt"]}.items():
        with tarfile.open(tmp_path / "tars" / archive, "w") as tar:
            for name in names:
                tar.add(tmp_path / "in" / name, name)
    found = listing(tmp_path / "tars")
    assert [place.name for place in found.places] == ["a.tar/2.png", "a.tar/1.jpg", "b.tar/3.jpeg"]
    assert read_all(found) == [b"2.png", b"1.jpg", b"3.jpeg"]
    assert read_all(listing(tmp_path / "tars" / "b.tar")) == [b"3.jpeg"]
    with found.open(0) as file:
        assert repr(file) == "a.tar/2.png"


def test_what_holds_no_pictures_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no pictures. Use a folder of .jpg"):
        listing(tmp_path)
    with pytest.raises(UserError, match="nowhere.txt' cannot be read as a list"):
        listing(tmp_path / "nowhere.txt")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(
        UserError, match="a.tar' cannot be read as a tar file: .*whole .tar files, not compressed"
    ):
        listing(tmp_path / "a.tar")
    with pytest.raises(UserError, match="The picture 'gone.png' is not there"):
        open_picture(tmp_path, "gone.png")
    with pytest.raises(
        UserError, match=r"a.tar/1.png' cannot be read as a picture of the cache: .*Restore it"
    ):
        open_picture(tmp_path, "a.tar/1.png")


def test_lists_may_begin_with_a_byte_order_mark_and_names_hold_separators(tmp_path):
    names = ["pics/1.png", "a\u2028b.png", "c.png"]
    (tmp_path / "list.txt").write_bytes("\r\n".join(names).encode("utf-8-sig"))
    assert [place.name for place in listing(tmp_path / "list.txt").places] == names


def test_a_tar_file_that_is_damaged_behind_its_beginning_is_named(tmp_path):
    """tarfile takes a damaged header for the end of the archive."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("1.png", "2.png", "3.png"):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
    assert len(listing(tmp_path / "a.tar").places) == 3
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[1536] ^= 1  # of the second member's header
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(
        UserError, match="b.tar' cannot be read as a tar file: the header at byte 1,536 is dam"
    ):
        listing(tmp_path / "b.tar")
