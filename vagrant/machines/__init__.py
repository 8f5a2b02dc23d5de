"""Test machines under plain QEMU, joined by a switch in user space: `vagrant/lab`. Needs the standard library only."""
