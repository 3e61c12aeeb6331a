"""What tells the volumes of one series apart: which attributes, where they stand, how they compare.

How frames are sorted by them belongs to volumes.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from attributes import Attributes, as_number, item_of, private_of, text_of

COMPONENTS = {
    "M": "MAGNITUDE",
    "P": "PHASE",
    "R": "REAL",
    "I": "IMAGINARY",
    "MAGNITUDE": "MAGNITUDE",
    "PHASE": "PHASE",
    "PHASE MAP": "PHASE",
    "REAL": "REAL",
    "IMAGINARY": "IMAGINARY",
}
OF_GE = {"0": "MAGNITUDE", "1": "PHASE", "2": "REAL", "3": "IMAGINARY"}
TIMING = "MRTimingAndRelatedParametersSequence"
NEAR = 1e-3  # as a share: an echo time that drifts by 0.001 ms from slice to slice
TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence", "XAXRFFrameTypeSequence")
B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x2001, "PHILIPS IMAGING DD 001", 0x03),
    (0x0065, "IMAGE PRIVATE HEADER", 0x09),
)
DIRECTIONS = ((0x0019, "SIEMENS MR HEADER", 0x0E), (0x0065, "IMAGE PRIVATE HEADER", 0x37))
DIRECTION_PARTS = (
    ("GEMS_ACQU_01", 0x0019, (0xBB, 0xBC, 0xBD)),
    ("PHILIPS MR IMAGING DD 001", 0x2005, (0xB0, 0xB1, 0xB2)),
)


@dataclass(frozen=True)
class Told:
    """What one attribute says of a frame.

    Attributes:
        label: as text.
        number: to compare with; None for a text.
    """

    label: str
    number: float | None = None


@dataclass(frozen=True)
class Telling:
    """An attribute that can tell volumes apart.

    Attributes:
        name: as labels call it.
        read: its value of a frame.
        contrast: it never varies within a volume, so that it parts even frames at different positions.
        within: numbers that differ by less than this share of them are the same.
        order: only the order at each position counts, as for times, which slices have their own of.
        binding: frames that it tells apart may be in no common volume.
    """

    name: str
    read: Callable[[Attributes], Told | None]
    contrast: bool = False
    within: float = 0.0
    order: bool = False
    binding: bool = True


def told_of(at: Attributes) -> dict[str, Told]:
    """All that a frame says of this kind."""
    return {telling.name: told for telling in TELLING if (told := telling.read(at)) is not None}


def _number(keyword: str, group: str = "", other: str = "") -> Callable[[Attributes], Told | None]:
    def read(at: Attributes) -> Told | None:
        text = (at.text(keyword, group) if group else None) or at.text(other or keyword)
        number = as_number(text or "")
        return None if text is None else Told(text if number is None else f"{number:.10g}", number)

    return read


def _text(keyword: str, group: str = "") -> Callable[[Attributes], Told | None]:
    def read(at: Attributes) -> Told | None:
        text = at.text(keyword, group)
        return None if text is None else Told(text)

    return read


def _time(*keywords: tuple[str, str, str]) -> Callable[[Attributes], Told | None]:
    """Times as seconds, from a date and time in one element or, failing that, in two."""

    def read(at: Attributes) -> Told | None:
        for group, joint, apart in keywords:
            label = text = at.text(joint, group) if joint else None
            if text is None and apart and (label := at.text(apart + "Time")):
                text = (at.text(apart + "Date") or "19000101") + label
            number = _seconds(text or "")
            if label and number is not None:
                return Told(label, number)
        return None

    return read


def _seconds(text: str) -> float | None:
    digits, _, rest = text.partition(".")
    rest = rest.split("+")[0].split("-")[0]
    digits = digits.split("+")[0].split("-")[0]
    try:
        when = datetime.strptime(digits, "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return (when - datetime(1, 1, 1)).total_seconds() + (as_number("0." + rest) or 0.0)


def _component(at: Attributes) -> Told | None:
    """Magnitude, phase, real or imaginary part, as the object or its maker says it."""
    said = at.text("ComplexImageComponent", "MRImageFrameTypeSequence")
    if said is None:
        kinds = (at.text("ImageType") or "").upper().split("\\")
        said = next((COMPONENTS[kind] for kind in kinds[2:5] if kind in COMPONENTS), None)
        said = OF_GE.get(private_of(at.ds, 0x0043, "GEMS_PARM_01", 0x2F) or "", said)
    if said is None:
        return None
    order = ["MAGNITUDE", "PHASE", "REAL", "IMAGINARY"]
    return Told(said, float(order.index(said) if said in order else len(order)))


def _image_type(at: Attributes) -> Told | None:
    for group in TYPES:
        if at.grouped and (text := at.text("FrameType", group)):
            return Told(text)
    return _text("ImageType")(at)


def _b_value(at: Attributes) -> Told | None:
    text = at.text("DiffusionBValue", "MRDiffusionSequence")
    for group, creator, element in B_VALUES:
        text = text or private_of(at.ds, group, creator, element)
    number = as_number((text or "").split("\\")[0])
    if number is None:
        return None
    number %= 1e6  # GE adds a billion
    return Told(f"{number:g}", number)


def _direction(at: Attributes) -> Told | None:
    text = None
    for source in at.sources("MRDiffusionSequence"):
        item = item_of(source, "DiffusionGradientDirectionSequence") or source
        text = text or text_of(item, "DiffusionGradientOrientation")
    told = _b_value(at)
    diffusion = told is not None and bool(told.number)  # elsewhere these elements have other meanings
    for group, creator, element in DIRECTIONS if diffusion else ():
        text = text or private_of(at.ds, group, creator, element)
    for creator, group, elements in DIRECTION_PARTS if diffusion else ():
        parts = [private_of(at.ds, group, creator, element) for element in elements]
        text = text or ("\\".join(part or "" for part in parts) if all(parts) else None)
    numbers = [as_number(part) for part in (text or "").split("\\")]
    if len(numbers) != 3 or any(number is None for number in numbers):
        return None
    return Told(" ".join(f"{number or 0:.3g}" for number in numbers))


def _coil(at: Attributes) -> Told | None:
    text = private_of(at.ds, 0x0051, "SIEMENS MR HEADER", 0x0F) or at.text("ReceiveCoilName", "MRReceiveCoilSequence")
    return Told(text) if text else None


# In the order in which volumes are sorted.
TELLING: tuple[Telling, ...] = (
    Telling("ComplexImageComponent", _component, contrast=True),
    Telling("ImageType", _image_type),
    Telling("StackID", _text("StackID", "FrameContentSequence")),
    Telling("DataType", _text("DataType", "ImageDataTypeSequence")),
    Telling("ConvolutionKernel", _text("ConvolutionKernel", "CTReconstructionSequence")),
    Telling("KVP", _number("KVP", "CTXRayDetailsSequence"), within=NEAR),
    Telling("MonoenergeticEnergyEquivalent", _number("MonoenergeticEnergyEquivalent")),
    Telling("EchoTime", _number("EffectiveEchoTime", "MREchoSequence", "EchoTime"), contrast=True, within=NEAR),
    Telling("EchoNumbers", _number("EchoNumbers")),
    Telling(
        "InversionTime",
        _number("InversionTimes", "MRModifierSequence", "InversionTime"),
        contrast=True,
        within=NEAR,
    ),
    Telling("FlipAngle", _number("FlipAngle", TIMING), contrast=True, within=NEAR),
    Telling("DiffusionBValue", _b_value, contrast=True),
    Telling("DiffusionDirectionality", _text("DiffusionDirectionality", "MRDiffusionSequence")),
    Telling("DiffusionGradientOrientation", _direction),
    Telling("ASLContext", _text("ASLContext", "MRArterialSpinLabelingSequence")),
    Telling("VelocityEncodingDirection", _text("VelocityEncodingDirection", "MRVelocityEncodingSequence")),
    Telling("ReceiveCoilName", _coil),
    Telling("TemporalPositionIndex", _number("TemporalPositionIndex", "FrameContentSequence")),
    Telling("TemporalPositionIdentifier", _number("TemporalPositionIdentifier")),
    Telling(
        "NominalPercentageOfCardiacPhase", _number("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence")
    ),
    Telling(
        "NominalPercentageOfRespiratoryPhase",
        _number("NominalPercentageOfRespiratoryPhase", "RespiratorySynchronizationSequence"),
    ),
    Telling(
        "TemporalPositionTimeOffset", _number("TemporalPositionTimeOffset", "TemporalPositionSequence"), order=True
    ),
    Telling(
        "TriggerTime",
        _number("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence", "TriggerTime"),
        order=True,
    ),
    Telling("FrameReferenceTime", _number("FrameReferenceTime"), order=True),
    Telling("RepetitionTime", _number("RepetitionTime", TIMING), binding=False),
    Telling(
        "AcquisitionNumber",
        _number("FrameAcquisitionNumber", "FrameContentSequence", "AcquisitionNumber"),
        order=True,
    ),
    Telling(
        "AcquisitionTime",
        _time(
            ("FrameContentSequence", "FrameAcquisitionDateTime", ""),
            ("FrameContentSequence", "FrameReferenceDateTime", ""),
            ("", "AcquisitionDateTime", "Acquisition"),
        ),
        order=True,
        binding=False,
    ),
    Telling("ContentTime", _time(("", "", "Content")), order=True, binding=False),
)
