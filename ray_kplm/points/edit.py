"""`points.yaml`, in which a user names, drops and merges the landmarks of a run, as a set of points.

    points:
      - {landmark: 3, name: nose}
      - {landmarks: [4, 9], name: left_eye, partner: right_eye}   # merged: their mean
      - {landmark: 5, name: right_eye}
    dropped: [7]
    edges: [[nose, left_eye], [nose, right_eye], [4, 5]]

The points are in the order of the file. A landmark that no point has is dropped. Partners and edges are given by names, or by
the number of a landmark, which means the point that has it: so a file stays right when its points are renamed or dropped.
`partner` may stand at one of two partners. Where it stands at neither, they are what the mirror model knows; `partner: null` is
none, and a point without one is its own, as `Layout` has it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yaml.nodes import Node, ScalarNode, SequenceNode

from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.yaml_nodes import YamlFile, is_null, is_number, line_of, shown, suggestion

LONGEST_NAME = 64
_KEYS = ("points", "dropped", "edges")
_POINT_KEYS = ("landmark", "landmarks", "name", "partner")


@dataclass(frozen=True)
class Edit:
    """What a file makes of the K landmarks of a run.

    Attributes:
        layout: Names, mirror partners and skeleton of the points.
        groups: The landmarks that each point is the mean of.
        landmarks: K.
        unmentioned: Landmarks that are dropped without being under `dropped`, ascending.
        notes: What else was left out, as it needs a dropped landmark, a line each.
    """

    layout: Layout
    groups: tuple[tuple[int, ...], ...]
    landmarks: int
    unmentioned: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def point_set(self) -> PointSet:
        """Return the points."""
        return PointSet.of_groups(self.layout, self.groups, self.landmarks)


def read_edit(content: bytes, file: str, flip_map: Sequence[int]) -> Edit:
    """Return what a file makes of the landmarks.

    Args:
        content: Of the file, YAML.
        file: Its name, for errors.
        flip_map: (K,), mirror partner of each landmark, or NONE.

    Raises:
        ConfigError: The content breaks a rule. The message names the line, the key and the way out.
    """
    hint = f"`kplm edit RUN --suggest {file} --force` writes one to begin with"
    return _Reader(YamlFile(content, file, if_empty=hint), flip_map).read()


@dataclass(frozen=True)
class _Point:
    """A point as the file has it. `partner` is the node that stands there, None for no such key."""

    node: Node
    group: tuple[int, ...]
    name: str
    partner: Node | None


class _Reader:
    """Makes points of the nodes of a file."""

    def __init__(self, file: YamlFile, flip_map: Sequence[int]) -> None:
        self._file, self._flip_map = file, list(flip_map)
        self._point_of: dict[int, int] = {}
        self._notes: list[str] = []

    def read(self) -> Edit:
        keys = self._file.mapping(self._file.root, "the file", _KEYS)
        entries = self._file.list_of(keys["points"], "points") if "points" in keys else []
        if not entries:
            raise self._file.error(
                keys.get("points", self._file.root), "points", "is missing or empty, so that every landmark would be dropped; "
                "keep one at least: - {landmark: 0, name: nose}. `kplm edit RUN --reset` returns to the landmarks"
            )  # fmt: skip
        points = [self._point(entry) for entry in entries]
        self._check_apart(points)
        self._point_of = {k: n for n, point in enumerate(points) for k in point.group}
        stated = set(self._dropped(keys["dropped"])) if "dropped" in keys else set()
        names, groups = tuple(point.name for point in points), tuple(point.group for point in points)
        partners = tuple(self._partners(points))
        edges = tuple(self._edges(keys["edges"], names)) if "edges" in keys else ()
        count = len(self._flip_map)
        unmentioned = tuple(k for k in range(count) if k not in self._point_of and k not in stated)
        return Edit(Layout("", names, partners, edges), groups, count, unmentioned, tuple(self._notes))

    def _point(self, node: Node) -> _Point:
        keys = self._file.mapping(node, "points", _POINT_KEYS)
        if ("landmark" in keys) == ("landmarks" in keys):
            raise self._file.error(
                node, "points", "a point has either landmark: 3, or landmarks: [4, 9] for the mean of several; give one"
            )
        key = "landmark" if "landmark" in keys else "landmarks"
        ones = [keys[key]] if key == "landmark" else self._file.list_of(keys[key], key)
        group = tuple(self._landmark(one, key) for one in ones)
        if not group:
            raise self._file.error(keys[key], key, "is empty; give the numbers of one or more landmarks")
        if "name" not in keys and len(group) > 1:
            listed = ", ".join(map(str, group))
            raise self._file.error(node, "points", f"the mean of the landmarks {listed} has no name; add name: ...")
        name = self._name(keys["name"], "name") if "name" in keys else f"landmark_{group[0]}"
        return _Point(node, group, name, keys.get("partner"))

    def _check_apart(self, points: Sequence[_Point]) -> None:
        """Raise ConfigError if two points have one name, or one landmark."""
        names, landmarks = dict[str, Node](), dict[int, Node]()
        for point in points:
            if (other := names.setdefault(point.name, point.node)) is not point.node:
                raise self._file.error(
                    point.node, "name", f"{point.name!r} is the name of the point in line {line_of(other)} too; give each "
                    "point another name, or merge them: landmarks: [...]"
                )  # fmt: skip
            for k in point.group:
                if k in landmarks:
                    raise self._file.error(
                        point.node, "landmark", f"landmark {k} is used in line {line_of(landmarks[k])} already; a landmark "
                        "belongs to one point: remove it from one of them"
                    )  # fmt: skip
                landmarks[k] = point.node

    def _dropped(self, node: Node) -> Iterator[int]:
        for one in self._file.list_of(node, "dropped"):
            k = self._landmark(one, "dropped")
            if k in self._point_of:
                raise self._file.error(one, "dropped", f"landmark {k} is a point too; remove it here or there")
            yield k

    def _partners(self, points: Sequence[_Point]) -> Iterator[int]:
        """Yield the partner of each point, itself for none: what stands there, what the partner says, or the mirror model's."""
        names = [point.name for point in points]
        said = {n: self._stated(n, node, names) for n, point in enumerate(points) if (node := point.partner)}
        for n, partner in list(said.items()):
            said.setdefault(partner, n)
        mirrored = self._mirrored([point.group for point in points])
        for n, point in enumerate(points):
            partner = said.get(n, mirrored[n] if mirrored[n] not in said else n)
            back = said.get(partner, n)
            if back != n:
                theirs = "none" if back == partner else names[back]
                raise self._file.error(
                    point.partner or point.node, "partner", f"{point.name} has the partner {names[partner]}, whose own is "
                    f"{theirs}; partners are mutual: write partner: {point.name} at {names[partner]}, or partner: null here"
                )  # fmt: skip
            yield partner

    def _stated(self, number: int, node: Node, names: Sequence[str]) -> int:
        if is_null(node):
            return number
        partner = self._number_of(node, "partner", names)
        if partner is None and isinstance(node, ScalarNode):
            self._notes.append(f"{names[number]} has no partner: landmark {node.value} is dropped")
        return number if partner is None else partner

    def _mirrored(self, groups: Sequence[tuple[int, ...]]) -> list[int]:
        """Return the point whose landmarks are the mirror partners of those of each point, and back; itself for none."""
        own = [frozenset(group) for group in groups]
        there = [frozenset(self._flip_map[k] for k in group) for group in groups]
        found = [own.index(mirror) if mirror in own else n for n, mirror in enumerate(there)]
        return [partner if there[partner] == own[n] else n for n, partner in enumerate(found)]

    def _edges(self, node: Node, names: Sequence[str]) -> Iterator[tuple[int, int]]:
        seen: dict[tuple[int, ...], tuple[Node, bool]] = {}
        for one in self._file.list_of(node, "edges"):
            ends = self._file.list_of(one, "edges")
            if len(ends) != 2:
                raise self._file.error(one, "edges", f"joins two points, and here are {len(ends)}; write [nose, eye]")
            first, second = (self._number_of(end, "edges", names) for end in ends)
            if first is None or second is None:
                lost = [str(end.value) for end, n in zip(ends, (first, second), strict=True) if n is None]
                text = f"landmarks {lost[0]} and {lost[1]} are" if len(lost) > 1 else f"landmark {lost[0]} is"
                self._notes.append(f"no edge {ends[0].value} - {ends[1].value}: {text} dropped")
                continue
            of_landmarks = all(is_number(end) for end in ends)
            if first == second and not (of_landmarks and ends[0].value != ends[1].value):
                raise self._file.error(one, "edges", f"joins {names[first]} with itself; name two points, or remove it")
            pair = (min(first, second), max(first, second))
            if pair in seen and not (of_landmarks and seen[pair][1]):
                raise self._file.error(
                    one, "edges", f"{names[first]} and {names[second]} are joined in line {line_of(seen[pair][0])} already; "
                    "remove one"
                )  # fmt: skip
            if first != second and pair not in seen:  # else landmarks that are merged now
                yield first, second
            seen.setdefault(pair, (one, of_landmarks))

    def _number_of(self, node: Node, key: str, names: Sequence[str]) -> int | None:
        """Return which point a name names, or which has the landmark of a number; None if that is dropped."""
        if is_number(node):
            return self._point_of.get(self._landmark(node, key))
        name = self._name(node, key)
        if name not in names:
            what = "the edge" if key == "edges" else key
            raise self._file.error(
                node, key, f"{name!r} is no point; {suggestion(name, names, 'the points are')}; else remove {what}"
            )
        return names.index(name)

    def _landmark(self, node: Node, key: str) -> int:
        last = len(self._flip_map) - 1
        if isinstance(node, SequenceNode):
            raise self._file.error(node, key, "is a list; for the mean of several landmarks write landmarks: [4, 9]")
        if not is_number(node):
            raise self._file.error(node, key, f"{shown(node)} is no landmark; give a number from 0 to {last}")
        if len(node.value) > 9 or int(node.value) > last:
            raise self._file.error(node, key, f"{node.value} is no landmark; the run has those from 0 to {last}")
        return int(node.value)

    def _name(self, node: Node, key: str) -> str:
        """Return a name, whatever YAML takes it for: `no` and `1e3` are names."""
        if not isinstance(node, ScalarNode):
            raise self._file.error(node, key, f"{shown(node)} is no name; write a word, or text in quotes")
        name = "" if is_null(node) else unicodedata.normalize("NFC", node.value).strip()
        if not name:
            raise self._file.error(node, key, "is empty; give a name")
        if is_number(node):
            raise self._file.error(node, key, f"{name} is a number, which means a landmark; give a name with a letter")
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise self._file.error(
                node, key, f"{name[:20]!r} is longer than {LONGEST_NAME} or has signs that do not print"
            )
        return name
