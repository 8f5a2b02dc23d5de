"""The managers' store, measured: writes beside PySyncObj and etcd, a killed leader, large states."""
