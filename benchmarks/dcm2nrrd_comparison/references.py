"""The volumes that dcm2niix and GDCM make of DICOM files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk  # noqa: N813  (its own name for it)

from dcm2nrrd_comparison.volumes import Volume, from_itk, read_nifti

ASIDE = ("_Tilt", "_Eq", "_ROI")  # dcm2niix writes what it resamples and overlays beside the volume
NON_UNIFORM = "ITK_non_uniform_sampling_deviation"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The volumes of another program, or the reason why it gives none."""

    volumes: list[Volume]
    reason: str = ""


def by_dcm2niix(folder: Path, *, philips: bool) -> Reference:
    """What dcm2niix writes for a folder, without what it resamples, and overlays.

    Args:
        folder: with the files of one series.
        philips: take RescaleSlope instead of the private scaling of Philips' MR, which is dcm2niix's default.
    """
    with TemporaryDirectory(prefix="dcm2niix-") as into:
        program = Path(sys.executable).with_name("dcm2niix")
        options = ["-z", "n", "-b", "n", "-f", "x", "-l", "o", "-p", "n" if philips else "y", "-o", into]
        try:
            ended = subprocess.run(
                [program, *options, folder], capture_output=True, check=False, timeout=600, errors="backslashreplace"
            )
        except subprocess.TimeoutExpired:
            return Reference(volumes=[], reason="not done after 600 s")
        made = sorted(path for path in Path(into).glob("*.nii") if not any(mark in path.name for mark in ASIDE))
        volumes = [volume for path in made for volume in read_nifti(path)]
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if line.startswith(("Warning", "Error"))]
    said.sort(key=lambda line: line.startswith("Error"))
    return Reference(volumes=volumes, reason="" if volumes else said[-1] if said else f"exit code {ended.returncode}")


def by_gdcm(files: Sequence[Path]) -> Reference:
    """The volume that GDCM makes of the files: one object, or images sorted by their positions."""
    with TemporaryDirectory(prefix="gdcm-") as folder, _errors_of_libraries_unheard():
        for number, file in enumerate(files):
            (Path(folder) / f"{number:06}.dcm").symlink_to(file.resolve())
        try:
            if len(files) == 1:
                return Reference(volumes=from_itk(sitk.ReadImage(str(files[0].resolve())), files[0].name))
            reader = sitk.ImageSeriesReader()
            reader.MetaDataDictionaryArrayUpdateOn()
            found = reader.GetGDCMSeriesIDs(folder)
            if len(found) != 1:
                return Reference(volumes=[], reason=f"finds {len(found)} series in these files")
            names = reader.GetGDCMSeriesFileNames(folder, found[0])
            if len(names) != len(files):
                return Reference(volumes=[], reason=f"sorts {len(names)} of {len(files)} files")
            reader.SetFileNames(names)
            image = reader.Execute()
        except RuntimeError as exc:
            said = [line.strip() for line in str(exc).splitlines() if line.strip()]
            return Reference(volumes=[], reason=said[-1] if said else "cannot read it")
    uneven = image.HasMetaDataKey(NON_UNIFORM)
    return Reference(volumes=from_itk(image, "GDCM"), reason="warns that slice distances vary" if uneven else "")


def by_itk(file: Path) -> Reference:
    """The NRRD as ITK reads it."""
    with _errors_of_libraries_unheard():
        try:
            return Reference(volumes=from_itk(sitk.ReadImage(str(file)), file.name))
        except RuntimeError as exc:
            return Reference(volumes=[], reason=str(exc).strip().splitlines()[-1])


@contextmanager
def _errors_of_libraries_unheard() -> Iterator[None]:
    """GDCM writes its complaints to the process's own standard error."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
