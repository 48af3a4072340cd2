"""Point clouds in every file type."""

import numpy as np
import pytest
import torch

from imagebind_llm.processing.config import PointConfig
from imagebind_llm.processing.point_files import load_points, prepare
from llama_adapter import UserError

POINTS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
PLAIN = PointConfig(normalise=False)


def lines(points):
    return "".join(f"{x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in points)


def ply(layout, body, count=20):
    header = (
        f"ply\nformat {layout} 1.0\ncomment a\nelement vertex {count}\nproperty uchar red\nproperty float x\n"
    )
    header += "property float y\nproperty double z\nelement face 1\n"
    header += "property list uchar int vertex_indices\nend_header\n"
    return header.encode() + body


def pcd(layout, body):
    header = "# .PCD v0.7\nVERSION 0.7\nFIELDS _ x y z rgb\nSIZE 1 4 4 4 4\nTYPE U F F F F\nCOUNT 2 1 1 1 1\n"
    return f"{header}WIDTH 20\nHEIGHT 1\nPOINTS 20\nDATA {layout}\n".encode() + body


def files():
    ascii_rows = "".join(f"7 {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in POINTS).encode()
    pcd_rows = "".join(f"1 2 {x:.9g} {y:.9g} {z:.9g} 0\n" for x, y, z in POINTS).encode()
    little = np.zeros(20, [("red", "u1"), ("x", "<f4"), ("y", "<f4"), ("z", "<f8")])
    packed = np.zeros(20, [("_", "u1", (2,)), ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])
    for table in (little, packed):
        for index, axis in enumerate("xyz"):
            table[axis] = POINTS[:, index]
    big = little.astype([("red", "u1"), ("x", ">f4"), ("y", ">f4"), ("z", ">f8")])
    return {
        "a.off": b"OFF\n20 0 0\n" + lines(POINTS).encode(),
        "glued.off": b"OFF20 1 0\n" + lines(POINTS).encode() + b"3 0 1 2\n",
        "a.ply": ply("ascii", ascii_rows + b"3 0 1 2\n"),
        "little.ply": ply("binary_little_endian", little.tobytes() + b"\x03" + b"\0" * 12),
        "big.ply": ply("binary_big_endian", big.tobytes() + b"\x03" + b"\0" * 12),
        "a.pcd": pcd("ascii", pcd_rows),
        "packed.pcd": pcd("binary", packed.tobytes()),
    }


@pytest.mark.parametrize("name", files())
def test_text_and_binary_files(tmp_path, name):
    (tmp_path / name).write_bytes(files()[name])
    torch.testing.assert_close(load_points(tmp_path / name, PLAIN), torch.from_numpy(POINTS))


def test_arrays_and_tensors(tmp_path):
    np.save(tmp_path / "a.npy", np.concatenate([POINTS, POINTS], axis=1))  # normals behind
    torch.save(torch.from_numpy(POINTS)[None].half().float(), tmp_path / "a.pt")
    torch.testing.assert_close(load_points(tmp_path / "a.npy", PLAIN), torch.from_numpy(POINTS))
    torch.testing.assert_close(
        load_points(tmp_path / "a.pt", PLAIN), torch.from_numpy(POINTS), atol=2e-3, rtol=0
    )


def variants():
    """The same points as other programs write them."""
    made = files()
    rows = lines(POINTS).encode()
    colours = rows.replace(b"\n", b" 0.1 0.2 0.3 1\n")
    found = {
        "CRLF.PLY": made["a.ply"].replace(b"\n", b"\r\n"),
        "bom.ply": b"\xef\xbb\xbf" + made["a.ply"],
        "accent.ply": made["a.ply"].replace(b"comment a", b"comment caf\xe9"),
        "crlf.off": made["a.off"].replace(b"\n", b"\r\n"),
        "mac.off": made["a.off"].replace(b"\n", b"\r"),
        "utf16.off": made["a.off"].decode().encode("utf-16"),
        "coloured.off": b"OFF\n20 0 0\n" + colours,
        "coff.off": b"COFF\n20 0 0\n" + colours,
        "normals.off": b"CNOFF\n20 0 0\n" + colours,
        "comments.off": b"# caf\xc3\x85 OFF\nOFF\n# n\n20 0 0 # counts\n\n" + rows,
        "crlf.pcd": made["a.pcd"].replace(b"\n", b"\r\n"),
        "accent.pcd": b"# caf\xc3\x85\n" + made["packed.pcd"],
        "tabs.pcd": made["a.pcd"].replace(b" 0\n", b"\t0\n"),
    }
    header, mark, body = made["little.ply"].partition(b"end_header\n")
    found["binary.ply"] = header.replace(b"\n", b"\r\n") + mark.replace(b"\n", b"\r\n") + body
    found["accents.ply"] = header.replace(b"comment a", "comment \u010d".encode()) + mark + body
    return found


@pytest.mark.parametrize("name", variants())
def test_what_other_programs_write(tmp_path, name):
    (tmp_path / name).write_bytes(variants()[name])
    torch.testing.assert_close(load_points(tmp_path / name, PLAIN), torch.from_numpy(POINTS))


@pytest.mark.parametrize("points", [POINTS.T, POINTS[None], POINTS.T[None], POINTS.astype(">f8")])
@pytest.mark.parametrize("suffix", ["npy", "npz", "NPY"])
def test_arrays_in_any_layout(tmp_path, points, suffix):
    with (tmp_path / f"a.{suffix}").open("wb") as file:
        (np.savez if suffix == "npz" else np.save)(file, points)
    torch.testing.assert_close(load_points(tmp_path / f"a.{suffix}", PLAIN), torch.from_numpy(POINTS))


def test_headers_that_announce_other_points_than_follow(tmp_path):
    made = files()
    (tmp_path / "more.ply").write_bytes(made["a.ply"].replace(b"vertex 20", b"vertex 3000000000"))
    (tmp_path / "more.off").write_bytes(made["a.off"].replace(b"20", b"21"))
    (tmp_path / "more.pcd").write_bytes(made["a.pcd"].replace(b"POINTS 20", b"POINTS 21"))
    (tmp_path / "4.off").write_bytes(b"4OFF\n1 0 0\n1 2 3 4\n")
    np.save(tmp_path / "wide.npy", np.zeros((20, 40)))
    np.save(tmp_path / "far.npy", np.full((4, 3), 3e200) * [[1], [-1], [1], [-1]])
    for name, message in [
        ("more.ply", "more.ply' cannot be read as a point cloud"),
        ("more.off", "more.off' cannot be read as a point cloud: 21 corners were announced, but 20 lines"),
        ("more.pcd", "more.pcd' cannot be read as a point cloud: 21 points were announced, but 20 lines"),
        ("4.off", "4.off' cannot be read as a point cloud: the first word is not OFF"),
        ("wide.npy", r"wide.npy' has the shape \(20, 40\). Use rows of x, y and z"),
        ("far.npy", "far.npy' holds coordinates up to 3e\\+200, which no unit of length needs"),
    ]:
        with pytest.raises(UserError, match=message):
            load_points(tmp_path / name, PointConfig())


def test_clouds_are_centred_and_of_radius_one():
    found = prepare(torch.from_numpy(POINTS) * 5 + 3, PointConfig())
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=1).max(), torch.tensor(1.0))
    torch.testing.assert_close(prepare(found, PointConfig()), found, atol=1e-6, rtol=0)
    assert prepare(torch.ones(4, 3), PointConfig()).abs().max() == 0


def test_large_clouds_are_thinned_evenly():
    points = torch.arange(30.0).view(10, 3)
    assert torch.equal(prepare(points, PointConfig(count=5, normalise=False)), points[::2])


class Evil:
    def __reduce__(self):
        return print, ("ran",)


def test_files_that_are_no_clouds(tmp_path, capsys):
    holes = POINTS.copy()
    holes[3] = np.nan
    np.save(tmp_path / "nan.npy", holes)
    np.save(tmp_path / "flat.npy", POINTS[:, :2])
    np.save(tmp_path / "none.npy", POINTS[:0])
    torch.save({"points": torch.zeros(4, 3), "labels": [1]}, tmp_path / "dict.pt")
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "cut.ply").write_bytes(files()["little.ply"][:250])
    (tmp_path / "face.ply").write_bytes(b"ply\nformat ascii 1.0\nelement face 0\nend_header\n")
    (tmp_path / "a.pcd").write_bytes(pcd("binary_compressed", b""))
    (tmp_path / "a.off").write_text("no cloud")
    (tmp_path / "b.off").write_text("OFF 5 0 0 1 2 3")
    (tmp_path / "a.obj").write_text("")
    for name, message in [
        ("nan.npy", "nan.npy' holds NaN or infinite coordinates in 1 points. Remove"),
        ("flat.npy", r"flat.npy' has the shape \(20, 2\). Use rows of x, y and z"),
        ("none.npy", "none.npy' has the shape"),
        ("dict.pt", r"dict.pt' holds \[\(4, 3\), 'list'\]. Use a file with one tensor"),
        ("evil.pt", "evil.pt' is damaged, or wants to run code while loading. Save the tensor alone"),
        ("cut.ply", "cut.ply' cannot be read as a point cloud: .*Replace"),
        ("face.ply", "face.ply' cannot be read as a point cloud: "),
        ("a.pcd", "a.pcd' cannot be read as a point cloud: its data are 'binary_compressed'"),
        ("a.off", "a.off' cannot be read as a point cloud: the first word is not OFF"),
        ("b.off", "b.off' cannot be read as a point cloud: .*Replace"),
        ("a.obj", "a.obj' is no point cloud known here. Use one of"),
        ("nowhere.ply", "nowhere.ply' cannot be read as a point cloud"),
    ]:
        with pytest.raises(UserError, match=message):
            load_points(tmp_path / name, PLAIN)
    assert capsys.readouterr().out == ""
