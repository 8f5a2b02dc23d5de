from __future__ import annotations

from engine.files.changes import users_changes
from engine.storage.driver import ADDED, DELETED, MODIFIED


def test_the_engines_own_places_are_not_shown_nor_folders_that_only_they_changed() -> None:
    found = [
        ("/dev", ADDED),
        ("/etc", MODIFIED),
        ("/etc/hosts", ADDED),
        ("/etc/hostname", ADDED),
        ("/proc", ADDED),
    ]
    assert users_changes(found) == []


def test_what_the_user_changed_beside_them_is_shown() -> None:
    found = [
        ("/etc", MODIFIED),
        ("/etc/hosts", ADDED),
        ("/etc/mine", ADDED),
        ("/tmp", MODIFIED),
        ("/x", DELETED),
    ]
    assert users_changes(found) == [
        ("/etc", MODIFIED),
        ("/etc/mine", ADDED),
        ("/tmp", MODIFIED),
        ("/x", DELETED),
    ]


def test_a_file_of_the_image_that_was_deleted_is_shown() -> None:
    assert users_changes([("/etc", MODIFIED), ("/etc/hosts", DELETED)]) == [
        ("/etc", MODIFIED),
        ("/etc/hosts", DELETED),
    ]
