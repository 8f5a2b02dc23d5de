"""The managers' store, measured: writes beside PySyncObj and etcd, a killed leader, a large state."""
