"""Volumes of a stack: one frame at each position, and never frames that an attribute tells apart."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np
from frames import Frame
from refusal import Refused
from telling import TELLING, Telling, Told

ROUNDING_MM = 0.1  # positions of one slice at several times, each rounded to one decimal
SHARE = 0.1  # of the slice distance: what is nearer is one position


@dataclass(eq=False)
class Volume:
    """Frames at different positions, along the normal of their plane.

    Attributes:
        spots: numbers of their positions in the stack.
        labels: what tells it from the other volumes of the stack, by attribute.
        order: the same as numbers, to sort by.
    """

    frames: list[Frame]
    spots: list[int]
    labels: dict[str, str] = field(default_factory=dict)
    order: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> tuple[int, int, int]:
        """When it was begun."""
        return min(frame.number for frame in self.frames)


def volumes_of(frames: list[Frame]) -> list[list[Volume]]:
    """Sets of volumes of the same positions, in the order of what tells them apart.

    Raises:
        Refused: nothing tells which frames belong to one volume, or what does is not consistent.
    """
    spots = _spots(frames)
    volumes = [volume for part in _contrasts(Volume(frames, spots)) for volume in _apart(part, list(TELLING))]
    _check_unmixed(volumes)
    volumes.sort(key=lambda volume: ([volume.order.get(telling.name, -np.inf) for telling in TELLING], volume.number))
    sets: dict[tuple[int, ...], list[Volume]] = {}
    for volume in volumes:
        sets.setdefault(tuple(volume.spots), []).append(volume)
    return sorted(sets.values(), key=lambda part: min(volume.number for volume in part))


def label_of(volumes: list[Volume]) -> tuple[str, list[str]] | None:
    """What tells volumes apart, with one value for each; None of a single one."""
    if len(volumes) == 1:
        return None
    names = [telling.name for telling in TELLING if _varies(volumes, telling.name)]
    labels = [" ".join(volume.labels.get(name, "none") for name in names) for volume in volumes]
    if len(set(labels)) < len(labels):
        names.append("InstanceNumber")
        labels = [f"{label} {_numbered(volume)}".strip() for label, volume in zip(labels, volumes, strict=True)]
    return " ".join(names), labels


def name_of(volumes: list[Volume], others: list[Volume]) -> str:
    """What tells one set of volumes from the rest of its stack, for a file's name."""
    parts = []
    for telling in TELLING:
        own = {volume.labels.get(telling.name) for volume in volumes}
        if len(own) == 1 and None not in own and own != {volume.labels.get(telling.name) for volume in others}:
            parts.append(f"{telling.name}-{own.pop()}")
    return "_".join(parts)


def _varies(volumes: list[Volume], name: str) -> bool:
    return len({volume.labels.get(name) for volume in volumes}) > 1


def _numbered(volume: Volume) -> str:
    number, index, _ = volume.number
    return f"{number}.{index + 1}" if len({frame.index for frame in volume.frames}) > 1 or index else str(number)


def _spots(frames: list[Frame]) -> list[int]:
    """For each frame the number of its position along the normal; nearly the same ones are one."""
    orientation = np.array(frames[0].orientation)
    along = np.array([np.array(frame.position) for frame in frames]) @ np.cross(orientation[:3], orientation[3:])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    said = frames[0].distance_mm or 0.0
    near = min(ROUNDING_MM, SHARE * max(float(gaps.max(initial=0.0)), said))
    spots = np.zeros(len(frames), int)
    spots[order] = np.concatenate([[0], np.cumsum(gaps > near)])
    return spots.tolist()


def _contrasts(whole: Volume) -> Iterator[Volume]:
    """Parts of one contrast each: what differs in it is no one volume even where no position repeats."""
    parts = [whole]
    for telling in TELLING:
        if telling.contrast:
            parts = [new for part in parts for new in _by_contrast(part, telling)]
    return iter(parts)


def _by_contrast(part: Volume, telling: Telling) -> list[Volume]:
    keys = _keys(part, telling)
    said = {key for key in keys if key is not None}
    # Where only some frames say it, and no two of them share a position, saying nothing is no difference.
    if len(said) > 1 or (len(set(keys)) > 1 and _differs_somewhere(part, keys)):
        return _parted(part, telling, keys)
    return [part]


def _apart(part: Volume, tellings: list[Telling]) -> list[Volume]:
    """The part as volumes of one frame at each position."""
    counts = Counter(part.spots)
    if set(counts.values()) == {1}:
        order = sorted(range(len(part.frames)), key=lambda at: part.spots[at])
        part.frames, part.spots = [part.frames[at] for at in order], [part.spots[at] for at in order]
        return [part]
    for telling, keys in _ways(part, tellings):
        rest = [other for other in tellings if other is not telling]
        return [volume for piece in _parted(part, telling, keys) for volume in _apart(piece, rest)]
    return _in_turn(part, counts)


def _keys(part: Volume, telling: Telling) -> list[object]:
    """For each frame a key that is the same for values that are nearly the same; None without a value."""
    told = [frame.told.get(telling.name) for frame in part.frames]
    numbers = sorted({each.number for each in told if each and each.number is not None})
    cluster: dict[float, int] = {}
    for number, before in zip(numbers, [None, *numbers], strict=False):
        new = before is None or number - before > telling.within * abs(number)
        cluster[number] = len(cluster) if new else cluster[before]
    return [None if each is None else each.label if each.number is None else cluster[each.number] for each in told]


def _ways(part: Volume, tellings: list[Telling]) -> Iterator[tuple[Telling, list[object]]]:
    """Attributes that part it, with a key for each frame; the surest first."""
    for telling in tellings:  # the same several values at every position
        keys = _keys(part, telling)
        if _differs_somewhere(part, keys) and _is_even(part, keys, everywhere=True):
            yield telling, keys
    for telling in tellings:  # as many values in order at every position, such as times
        keys = _ranks(part, telling) if telling.order else []
        if keys and _differs_somewhere(part, keys) and _is_even(part, keys, everywhere=True):
            yield telling, keys
    for telling in tellings:  # values at some positions only
        keys = [] if telling.order or not telling.binding else _keys(part, telling)
        if keys and _differs_somewhere(part, keys) and _is_even(part, keys, everywhere=False):
            yield telling, keys


def _ranks(part: Volume, telling: Telling) -> list[object]:
    """For each frame the rank of its number at its position; all None if one has no number."""
    told = [frame.told.get(telling.name) for frame in part.frames]
    numbers = [None if each is None else each.number for each in told]
    if None in numbers:
        return [None] * len(numbers)
    at_spot: dict[int, set[float]] = {}
    for spot, number in zip(part.spots, numbers, strict=True):
        at_spot.setdefault(spot, set()).add(number or 0.0)
    ranked = {spot: {number: rank for rank, number in enumerate(sorted(found))} for spot, found in at_spot.items()}
    return [ranked[spot][number or 0.0] for spot, number in zip(part.spots, numbers, strict=True)]


def _differs_somewhere(part: Volume, keys: list[object]) -> bool:
    return len(set(zip(part.spots, keys, strict=True))) > len(set(part.spots))


def _is_even(part: Volume, keys: list[object], *, everywhere: bool) -> bool:
    """Whether each piece has one number of frames at all its positions, which are all of the part's."""
    of_key: dict[object, list[int]] = {}
    for (key, _), count in Counter(zip(keys, part.spots, strict=True)).items():
        of_key.setdefault(key, []).append(count)
    places = len(set(part.spots))
    return all(len(set(found)) == 1 and not (everywhere and len(found) < places) for found in of_key.values())


def _parted(part: Volume, telling: Telling, keys: list[object]) -> list[Volume]:
    pieces = []
    members: dict[object, list[int]] = {}
    for number, key in enumerate(keys):
        members.setdefault(key, []).append(number)
    for at in members.values():
        piece = Volume([part.frames[each] for each in at], [part.spots[each] for each in at])
        lowest = min(zip(piece.spots, piece.frames, strict=True), key=lambda pair: (pair[0], pair[1].number))[1]
        told = lowest.told.get(telling.name)
        piece.labels, piece.order = dict(part.labels), dict(part.order)
        if told is not None:
            piece.labels[telling.name] = _label(told)
            piece.order[telling.name] = np.nan if told.number is None else told.number
        pieces.append(piece)
    # Texts have no order of their own: theirs is that of the frames.
    for rank, piece in enumerate(sorted(pieces, key=lambda piece: piece.number)):
        if np.isnan(piece.order.get(telling.name, 0.0)):
            piece.order[telling.name] = float(rank)
    for key, piece in zip(members, pieces, strict=True):
        if telling.order and isinstance(key, int):
            piece.order[telling.name] = float(key)
    return pieces


def _label(told: Told) -> str:
    return told.label.replace("\\", "/")


def _in_turn(part: Volume, counts: Mapping[int, int]) -> list[Volume]:
    """Volumes by InstanceNumber: all of a volume before the next, or all of a position."""
    few, many = min(counts.values()), max(counts.values())
    if few < many:
        raise Refused(f"several images at the same position, {few} at some and {many} at others")
    pairs = sorted(zip(part.spots, part.frames, strict=True), key=lambda pair: (pair[0], pair[1].number))
    groups = [[frame for _, frame in group] for _, group in groupby(pairs, key=lambda pair: pair[0])]
    columns = [list(column) for column in zip(*groups, strict=True)]
    if not _are_in_turn(columns) and not _are_in_turn(groups):
        raise Refused(f"{many} images at each position, and nothing tells which belong to one volume")
    spots = sorted(set(part.spots))
    return [Volume(column, spots, dict(part.labels), dict(part.order)) for column in columns]


def _are_in_turn(parts: list[list[Frame]]) -> bool:
    numbers = [sorted(frame.number for frame in part) for part in parts]
    if len({number for part in numbers for number in part}) < sum(len(part) for part in numbers):
        return False
    return all(earlier[-1] < later[0] for earlier, later in pairwise(sorted(numbers)))


def _check_unmixed(volumes: list[Volume]) -> None:
    """No volume mixes what differs between frames at one position."""
    pairs = [(frame, spot) for volume in volumes for frame, spot in zip(volume.frames, volume.spots, strict=True)]
    whole = Volume([frame for frame, _ in pairs], [spot for _, spot in pairs])
    owner = [number for number, volume in enumerate(volumes) for _ in volume.frames]
    for telling in TELLING:
        keys = _keys(whole, telling)
        if not telling.binding or not _differs_somewhere(whole, keys):
            continue
        if telling.order and not _is_even(whole, keys, everywhere=True):
            mixed = _order_is_mixed(volumes, telling)
        else:
            mixed = len(set(zip(owner, keys, strict=True))) > len(volumes)
        if mixed:
            raise Refused(f"images at the same position differ in {telling.name}, and no volume could have its own")


def _order_is_mixed(volumes: list[Volume], telling: Telling) -> bool:
    """Whether of two volumes that nothing better tells apart one is earlier here and later there."""
    sure = [name.name for name in TELLING if name.binding]
    same: dict[tuple[str | None, ...], list[Volume]] = {}
    for volume in volumes:
        same.setdefault(tuple(volume.labels.get(name) for name in sure), []).append(volume)
    for alike in same.values():
        numbers = np.full((max(max(volume.spots) for volume in alike) + 1, len(alike)), np.nan)
        for column, volume in enumerate(alike):
            for frame, spot in zip(volume.frames, volume.spots, strict=True):
                told = frame.told.get(telling.name)
                numbers[spot, column] = np.nan if told is None or told.number is None else told.number
        before = (numbers[:, :, None] < numbers[:, None, :]).any(axis=0)
        if (before & before.T).any():
            return True
    return False
