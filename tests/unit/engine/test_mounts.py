from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import (
    BindOptions,
    ContainerConfig,
    HostConfig,
    MountPoint,
    TmpfsOptions,
    VolumeDriverConfig,
    VolumeOptions,
)
from engine.container import Container, ResolvedMount
from engine.errors import InvalidParameter, NotFound
from engine.mounts import MountResolver, parse_bind, parse_mount, parse_tmpfs
from engine.volumes import VolumeStore
from tests.records import container_record, volume_mount


@pytest.fixture
def volumes(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", lambda name: ())


class Others:
    """The other containers of the host, by name."""

    def __init__(self) -> None:
        self.known: dict[str, Container] = {}

    def __call__(self, name: str) -> Container:
        if name not in self.known:
            raise NotFound(f"No such container: {name}")
        return self.known[name]


@pytest.fixture
def others() -> Others:
    return Others()


@pytest.fixture
def resolver(volumes: VolumeStore, others: Others) -> MountResolver:
    return MountResolver(volumes, others)


def resolve(resolver: MountResolver, *image_volumes: str, **host: object) -> dict[str, ResolvedMount]:
    config = ContainerConfig(volumes={path: {} for path in image_volumes})
    return {mount.target: mount for mount in resolver.resolve(config, HostConfig(**host))}


def volume_names(volumes: VolumeStore) -> list[str]:
    return [volume["Name"] for volume in volumes.summaries({})["Volumes"]]


@pytest.mark.parametrize(
    ("text", "kind", "source", "name", "target"),
    [
        ("/srv/data:/data", "bind", "/srv/data", "", "/data"),
        ("/srv//x/../data/:/data/", "bind", "/srv/data", "", "/data"),
        ("data:/data", "volume", "", "data", "/data"),
        ("/data", "volume", "", "", "/data"),
    ],
)
def test_what_a_volume_flag_names(text: str, kind: str, source: str, name: str, target: str) -> None:
    mount = parse_bind(text)
    assert (mount.kind, mount.source, mount.name, mount.target) == (kind, source, name, target)
    assert mount.anonymous is (kind == "volume" and not name)
    assert mount.copy_up is (kind == "volume")


def test_modes_of_a_volume_flag() -> None:
    bind = parse_bind("/a:/b:ro,Z,rslave,cached")
    assert (bind.read_only, bind.propagation, bind.mode) == (True, "rslave", "ro,Z,rslave,cached")
    assert parse_bind("a1:/b:nocopy").copy_up is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":/b",
        "/a:",
        "/a:/b:ro:x",
        "/a:b",
        "/a:/",
        "/a:/x/..",
        "/a:/proc/sys",
        "/a:/x/../proc/kcore",
        "./a:/b",
        "a/b:/c",
        "x:/b",  # one letter is no name
        "na me:/b",
        "name\n:/b",
        "/a:/b:ro,rw",
        "/a:/b:ro,ro",
        "/a:/b:z,Z",
        "/a:/b:shared,slave",
        "/a:/b:readonly",
        "/a:/b:nocopy",
        "vol:/b:rshared",
    ],
)
def test_volume_flags_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_bind(text)


def test_a_missing_bind_source_is_made_for_a_volume_flag_only(
    tmp_path: Path, resolver: MountResolver
) -> None:
    source = tmp_path / "new/deep"
    with pytest.raises(InvalidParameter, match=f"bind source path does not exist: {source}"):
        resolve(resolver, mounts=[MountPoint(type="bind", source=str(source), target="/x")])
    assert not source.exists()
    made = MountPoint(
        type="bind", source=str(source), target="/x", bind_options=BindOptions(create_mountpoint=True)
    )
    resolve(resolver, mounts=[made], binds=[f"{tmp_path}/other:/y"])
    assert source.is_dir() and (tmp_path / "other").is_dir()


def test_a_bind_source_that_cannot_be_made_is_the_requests_error(
    tmp_path: Path, resolver: MountResolver
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for source in (f"{tmp_path}/file/below", f"{tmp_path}/dangling", "/" + "x" * 300):
        with pytest.raises(InvalidParameter, match="error while creating mount source path"):
            resolve(resolver, binds=[f"{source}:/x"])


def test_a_mount_of_each_type(tmp_path: Path, resolver: MountResolver, volumes: VolumeStore) -> None:
    mounts = resolve(
        resolver,
        mounts=[
            MountPoint(
                type="bind",
                source=str(tmp_path),
                target="/bind",
                read_only=True,
                bind_options=BindOptions(propagation="rshared", non_recursive=True),
            ),
            MountPoint(
                type="volume",
                source="data",
                target="/volume",
                volume_options=VolumeOptions(
                    no_copy=True, labels={"a": "1"}, driver_config=VolumeDriverConfig(name="local")
                ),
            ),
            MountPoint(
                type="tmpfs", target="/tmpfs", tmpfs_options=TmpfsOptions(size_bytes=65536, mode=0o1770)
            ),
        ],
    )
    bind, volume, tmpfs = mounts["/bind"], mounts["/volume"], mounts["/tmpfs"]
    assert (bind.source, bind.read_only, bind.propagation, bind.non_recursive) == (
        str(tmp_path),
        True,
        "rshared",
        True,
    )
    assert (volume.copy_up, volume.source) == (False, str(tmp_path / "volumes/data/_data"))
    assert volumes.inspect("data")["Labels"] == {"a": "1"}
    assert tmpfs.options == ["nosuid", "nodev", "noexec", "size=65536", "mode=1770"]


@pytest.mark.parametrize(
    "wish",
    [
        MountPoint(type="npipe", source="x", target="/x"),
        MountPoint(type="bind", source="relative", target="/x"),
        MountPoint(type="bind", source="/", target="/x", bind_options=BindOptions(propagation="up")),
        MountPoint(type="bind", source="/", target="/x", volume_options=VolumeOptions()),
        MountPoint(type="volume", source="a1", target="/x", bind_options=BindOptions()),
        MountPoint(type="volume", source="a1", target="x"),
        MountPoint(type="volume", source="a1", target="/x", volume_options=VolumeOptions(subpath="../y")),
        MountPoint(type="volume", target="/x", volume_options=VolumeOptions(subpath="y")),
        MountPoint(
            type="bind", source="/", target="/x", bind_options=BindOptions(read_only_non_recursive=True)
        ),
        MountPoint(type="tmpfs", source="a1", target="/x"),
        MountPoint(type="tmpfs", target="/x", tmpfs_options=TmpfsOptions(options=[["bogus"]])),
    ],
    ids=lambda wish: f"{wish.type} {wish.source} {wish.target}",
)
def test_mounts_that_are_refused(wish: MountPoint) -> None:
    with pytest.raises(InvalidParameter):
        parse_mount(wish)


def test_an_unknown_volume_driver_is_not_ignored(resolver: MountResolver, volumes: VolumeStore) -> None:
    driver = VolumeOptions(driver_config=VolumeDriverConfig(name="nfs"))
    wish = MountPoint(type="volume", source="data", target="/x", volume_options=driver)
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        resolve(resolver, mounts=[wish])
    assert volume_names(volumes) == []


@pytest.mark.parametrize(
    ("given", "options", "read_only"),
    [
        ("", ["nodev", "noexec", "nosuid"], False),
        ("exec,size=64m,mode=1777", ["nodev", "nosuid", "exec", "size=64m", "mode=1777"], False),
        ("ro,nosuid", ["nodev", "noexec", "ro", "nosuid"], True),
    ],
)
def test_options_of_a_tmpfs(given: str, options: list[str], read_only: bool) -> None:
    mount = parse_tmpfs("/run", given)
    assert (mount.options, mount.read_only) == (options, read_only)


@pytest.mark.parametrize("given", ["bogus", "lowerdir=/", "size", "ro=1"])
def test_options_that_a_tmpfs_does_not_have(given: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid tmpfs option"):
        parse_tmpfs("/run", given)


def test_two_wishes_for_one_target(resolver: MountResolver, others: Others) -> None:
    others.known["other"] = container_record("other", mounts=[])
    for more in ({}, {"volumes_from": ["other"]}):
        with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
            resolve(resolver, binds=["/tmp:/x"], tmpfs={"/x/": ""}, **more)


def test_a_wish_wins_over_other_containers_and_these_over_the_image(
    resolver: MountResolver, others: Others, volumes: VolumeStore
) -> None:
    theirs = [volume_mount("theirs", target, anonymous=True) for target in ("/a", "/b")]
    others.known["other"] = container_record("other", mounts=theirs)
    mounts = resolve(resolver, "/a", "/b", "/c", binds=["mine:/a"], volumes_from=["other"])
    assert (mounts["/a"].name, mounts["/b"].name) == ("mine", "theirs")
    assert [target for target, mount in mounts.items() if mount.anonymous] == ["/c"]
    assert volume_names(volumes) == sorted(["mine", mounts["/c"].name])


@pytest.mark.parametrize(
    ("mode", "written_there", "written_here"),
    [
        ("", True, True),
        ("", False, False),
        (":ro", True, False),
        (":rw", True, True),
        (":rw,z", False, False),
    ],
)
def test_what_is_read_only_there_stays_so_here(
    resolver: MountResolver, others: Others, mode: str, written_there: bool, written_here: bool
) -> None:
    bind = ResolvedMount(
        kind="bind", source="/", target="/x", read_only=not written_there, propagation="rslave"
    )
    tmpfs = ResolvedMount(kind="tmpfs", source="", target="/t")
    others.known["other"] = container_record("other", mounts=[bind, tmpfs])
    mounts = resolve(resolver, volumes_from=[f"other{mode}"])
    assert list(mounts) == ["/x"]
    assert mounts["/x"].read_only is not written_here
    assert mounts["/x"].propagation == "rslave"


@pytest.mark.parametrize("reference", ["other:rslave", "other:ro,rw", "nobody"])
def test_references_to_other_containers_that_are_refused(
    resolver: MountResolver, others: Others, reference: str
) -> None:
    others.known["other"] = container_record("other", mounts=[])
    with pytest.raises(InvalidParameter):
        resolve(resolver, volumes_from=[reference])


def test_a_failed_request_leaves_no_anonymous_volume(
    tmp_path: Path, resolver: MountResolver, volumes: VolumeStore
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidParameter):
        resolve(resolver, binds=["/anonymous", "named:/named", f"{tmp_path}/file/below:/x"])
    assert volume_names(volumes) == ["named"]


def test_what_is_mounted_below_comes_later(resolver: MountResolver) -> None:
    mounts = resolve(resolver, "/a/b", binds=["deep:/a/b/c", "top:/a"])
    assert list(mounts) == ["/a", "/a/b", "/a/b/c"]


def test_options_of_a_tmpfs_of_mounts() -> None:
    options = TmpfsOptions(options=[["exec"], ["uid", "7"]])
    made = parse_mount(MountPoint(type="tmpfs", target="/x", tmpfs_options=options))
    assert made.options == ["nosuid", "nodev", "exec", "uid=7"]


def test_a_part_of_a_volume_and_how_deep_read_only_reaches() -> None:
    part = parse_mount(
        MountPoint(type="volume", source="data", target="/x", volume_options=VolumeOptions(subpath="a/./b"))
    )
    assert (part.subpath, part.copy_up) == ("a/b", False)
    flat = BindOptions(read_only_non_recursive=True)
    bind = MountPoint(type="bind", source="/", target="/x", read_only=True, bind_options=flat)
    assert parse_mount(bind).read_only_top
    both = BindOptions(read_only_non_recursive=True, read_only_force_recursive=True)
    with pytest.raises(InvalidParameter, match="cannot set both"):
        parse_mount(MountPoint(type="bind", source="/", target="/x", read_only=True, bind_options=both))
