"""Volumes with their place in the patient, read from NRRD, NIfTI-1 and by ITK."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import nrrd
import numpy as np
import SimpleITK as sitk  # noqa: N813  (its own name for it)

NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
RGB24 = 128
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels and where they are.

    Attributes:
        name: file, and number on the fourth axis if there are several.
        values: columns, rows, slices and, for RGB, samples.
        affine: 4x4, from indices to mm in LPS; None if the file does not say where it lies.
        in_patient: False where the affine leads into a space of the object's own.
        timed: the third axis is time.
        labels: DICOM keyword and value by which the file tells this volume from its others.
    """

    name: str
    values: np.ndarray
    affine: np.ndarray | None
    in_patient: bool = True
    timed: bool = False
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def size(self) -> str:
        return "x".join(str(each) for each in self.shape[:3]) + (" RGB" if len(self.shape) > 3 else "")


def read_nrrd(path: Path, name: str) -> list[Volume]:
    """The volumes of a NRRD; a fourth axis is taken apart.

    Raises:
        ValueError: the axes are none that an image of this converter has.
    """
    values, head = nrrd.read(str(path))
    kinds = list(head.get("kinds") or ["domain"] * values.ndim)
    if kinds[0] == "RGB-color":
        values = np.moveaxis(values, 0, -1)
    spatial = [axis for axis, kind in enumerate(kinds) if kind in {"domain", "space", "time"}]
    directions = head.get("space directions")
    affine = None
    if directions is not None:
        if "space" in head and head["space"] != "left-posterior-superior":
            raise ValueError(f"space {head['space']!r}, not left-posterior-superior")
        affine = np.eye(4)
        affine[:3, :3] = np.array([directions[axis] for axis in spatial[:3]], float).T
        affine[:3, 3] = head["space origin"]
    several = [values]
    if {"list", "vector"} & set(kinds):
        several = [np.take(values, number, axis=3) for number in range(values.shape[3])]
    return [
        Volume(
            name=name if len(several) == 1 else f"{name}[{number}]",
            values=each,
            affine=affine,
            in_patient="space" in head,
            timed="time" in kinds,
            labels=_labels(head, number),
        )
        for number, each in enumerate(several)
    ]


def _labels(head: dict[str, object], number: int) -> dict[str, str]:
    keyword = str(head.get("MultiVolume.FrameIdentifyingDICOMTagName") or "")
    labels = str(head.get("MultiVolume.FrameLabels") or "").split(",")
    return {keyword: labels[number]} if keyword and number < len(labels) else {}


def read_nifti(path: Path) -> list[Volume]:
    """The volumes of an uncompressed NIfTI-1 file of one part, in LPS; the sform counts, sheared or not."""
    data = path.read_bytes()
    end = "<" if struct.unpack("<i", data[:4])[0] == 348 else ">"
    sizes = struct.unpack(f"{end}8h", data[40:56])
    kind = struct.unpack(f"{end}h", data[70:72])[0]
    offset, slope, intercept = struct.unpack(f"{end}3f", data[108:120])
    shape = [max(1, each) for each in sizes[1 : sizes[0] + 1]] + [1] * max(0, 3 - sizes[0])
    affine = np.eye(4)
    affine[:3] = np.frombuffer(data, f"{end}f4", 12, 280).reshape(3, 4)
    affine = TO_LPS @ affine
    volumes = int(np.prod(shape[3:], dtype=int))
    if kind == RGB24:
        flat = np.frombuffer(data, "u1", int(np.prod(shape)) * 3, int(offset)).reshape(
            (3, *shape[:3], volumes), order="F"
        )
        return [
            Volume(name=f"{path.name}[{n}]", values=np.moveaxis(flat[..., n], 0, -1), affine=affine)
            for n in range(volumes)
        ]
    flat = np.frombuffer(data, f"{end}{NIFTI_TYPES[kind]}", int(np.prod(shape)), int(offset))
    flat = flat.reshape((*shape[:3], volumes), order="F")
    scaled = slope not in {0.0, 1.0} or intercept != 0.0
    return [
        Volume(
            name=f"{path.name}[{number}]" if volumes > 1 else path.name,
            values=flat[..., number] * slope + intercept if scaled else flat[..., number],
            affine=affine,
        )
        for number in range(volumes)
    ]


def from_itk(image: sitk.Image, name: str) -> list[Volume]:
    """The volumes of an image of SimpleITK; its components stay samples."""
    if image.GetDimension() == 4:
        return [volume for number in range(image.GetSize()[3]) for volume in from_itk(image[..., number], name)]
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    values = sitk.GetArrayFromImage(image)
    axes = (2, 1, 0, 3) if image.GetNumberOfComponentsPerPixel() > 1 else (2, 1, 0)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return [Volume(name=name, values=values.transpose(axes), affine=affine)]


def turned_like(volume: Volume, like: np.ndarray) -> Volume:
    """The same voxels at the same places, with the axes in the order and directions of another affine."""
    if volume.affine is None:
        return volume
    ours, theirs = (matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (volume.affine, like))
    cosines = theirs.T @ ours
    order = _assignment(np.abs(cosines))
    values = volume.values.transpose(*order, *range(3, volume.values.ndim))
    affine = volume.affine[:, [*order, 3]].copy()
    for axis in range(3):
        if cosines[axis, order[axis]] < 0:
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
            values = np.flip(values, axis)
    return replace(volume, values=values, affine=affine)


def _assignment(cosines: np.ndarray) -> list[int]:
    left, order = {0, 1, 2}, []
    for row in cosines:
        best = max(left, key=lambda axis, row=row: row[axis])
        left.remove(best)
        order.append(best)
    return order


def slices(volume: Volume) -> Iterator[np.ndarray]:
    """Its planes as rows x columns (x samples), from the first."""
    for number in range(volume.values.shape[2]):
        yield volume.values[:, :, number].swapaxes(0, 1)
