"""The only translators between the API's JSON and the cluster's objects."""

from node.api.convert.cluster import (
    availability_from_api,
    cluster_info_to_api,
    cluster_spec_from_api,
    cluster_to_api,
    config_spec_from_api,
    config_to_api,
    node_spec_from_api,
    node_to_api,
    secret_spec_from_api,
    secret_to_api,
)
from node.api.convert.mounts import check_container_mount
from node.api.convert.networks import (
    check_address_pools,
    check_local_network,
    network_spec_from_api,
    network_to_api,
)
from node.api.convert.services_in import service_spec
from node.api.convert.services_out import service_to_api, spec_to_api, task_to_api

__all__ = [
    "availability_from_api",
    "check_local_network",
    "check_address_pools",
    "check_container_mount",
    "cluster_info_to_api",
    "cluster_spec_from_api",
    "cluster_to_api",
    "config_spec_from_api",
    "config_to_api",
    "network_spec_from_api",
    "network_to_api",
    "node_spec_from_api",
    "node_to_api",
    "secret_spec_from_api",
    "secret_to_api",
    "service_spec",
    "service_to_api",
    "spec_to_api",
    "task_to_api",
]
