"""Services and their tasks: create, update, roll back, remove, look at.

Resolves the names of networks, secrets and configs to ids, so that everything below knows ids only. The
tasks themselves are the leader's business; this module only reads them.
"""

from __future__ import annotations

import msgspec

from node.manager.control import listing
from node.manager.control.base import (
    Control,
    Filters,
    check_version,
    find,
    find_named,
    find_network,
    find_node,
    find_service,
)
from raft import defaults, validate
from raft.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from raft.objects.base import Kind, Record, new_id
from raft.objects.request import Request
from raft.objects.service import (
    FileReference,
    NetworkAttachmentSpec,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from raft.objects.task import Task, TaskState
from raft.store import Transaction, View
from scheduler import ports

_PAUSED = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})
_DESIRED = {"running": TaskState.RUNNING, "shutdown": TaskState.SHUTDOWN, "accepted": TaskState.ACCEPTED}
ROLLBACK_MESSAGE = "manually requested rollback"


class ServiceStatus(Record, frozen=True):
    """How many tasks run and how many should: `GET /services?status=true`."""

    running: int = 0
    desired: int = 0
    completed: int = 0


class ServiceControl(Control):
    async def create_service(self, spec: ServiceSpec, *, request: Request | None = None) -> Service:
        service_id = new_id()

        def create(tx: Transaction) -> str:
            ready = _checked(tx, spec, service_id)
            name = ready.annotations.name
            if tx.by_name(Kind.SERVICE, name) is not None:
                raise AlreadyExists(f"name conflicts with an existing object: service {name} already exists")
            tx.put(Service(id=service_id, spec=ready))
            return service_id

        write = self._update_alone if _depends_on_others(spec) else self._store.update
        return self._written(await write(create, request), spec)

    async def update_service(
        self,
        id: str,
        version: int,
        spec: ServiceSpec,
        rollback: str = "",
        *,
        request: Request | None = None,
    ) -> Service:
        """`rollback` "previous" takes the previous spec instead of `spec`."""
        if rollback not in ("", "previous"):
            raise InvalidArgument(f"unrecognized rollback option {rollback}")

        def update(tx: Transaction) -> str:
            service = find_service(tx, id)
            check_version(service, version)
            if rollback:
                changed = _rolled_back(service, self._now())
                _checked(tx, changed.spec, service.id)  # what it needs may be gone or taken by now
            else:
                changed = _respecified(service, _checked(tx, spec, service.id))
            if changed != service:
                tx.put(changed)
            return service.id

        write = self._update_alone if rollback or _depends_on_others(spec) else self._store.update
        return self._written(await write(update, request), spec)

    async def remove_service(self, id: str, *, request: Request | None = None) -> None:
        """The service goes at once, its name is free again; the leader stops and removes its tasks."""
        await self._store.update(lambda tx: tx.delete(Kind.SERVICE, find_service(tx, id).id), request)

    async def get_service(self, ref: str) -> Service:
        return find_service(self._store.view(), ref)

    async def list_services(self, filters: Filters) -> list[Service]:
        return listing.passing(
            self._store.view().services.values(),
            filters,
            {
                "id": listing.by_id,
                "name": lambda s, values: listing.has_prefix(s.spec.annotations.name, values),
                "label": lambda s, values: listing.has_labels(s.spec.annotations.labels, values),
                "mode": lambda s, values: s.spec.mode.value in listing.one_of("mode", ServiceMode, values),
                "runtime": lambda _, values: "container" in values,
            },
        )

    async def service_statuses(self) -> dict[str, ServiceStatus]:
        view = self._store.view()
        return {service.id: _status(service, view) for service in view.services.values()}

    def _written(self, id: str, spec: ServiceSpec) -> Service:
        return self._store.view().services.get(id) or Service(id=id, spec=spec)

    # ---- tasks ----

    async def get_task(self, ref: str) -> Task:
        return find(Kind.TASK, self._store.view().tasks, ref, lambda task: (task.name,))

    async def list_tasks(self, filters: Filters) -> list[Task]:
        view = self._store.view()
        services = {find_service(view, ref).id for ref in filters.get("service", ())}
        nodes = {find_node(view, ref).id for ref in filters.get("node", ())}
        return listing.passing(
            view.tasks.values(),
            filters,
            {
                "id": listing.by_id,
                "name": lambda t, values: listing.has_prefix(t.name, values),
                "label": lambda t, values: listing.has_labels(t.spec.container.labels, values),
                "service": lambda t, _: t.service_id in services,
                "node": lambda t, _: t.node_id in nodes,
                "desired-state": _wanted_state,
                "runtime": lambda _, values: "container" in values,
                "_up-to-date": lambda t, values: _is_current(t, view) is ("true" in values),
            },
        )


def _wanted_state(task: Task, values: list[str]) -> bool:
    words = listing.one_of("desired-state", _DESIRED, [value.lower() for value in values])
    return task.desired_state in {_DESIRED[word] for word in words}


def _is_current(task: Task, view: View) -> bool:
    service = view.services.get(task.service_id)
    return service is not None and task.spec_version == service.spec_version


def _status(service: Service, view: View) -> ServiceStatus:
    wanted = [t for t in view.tasks_of_service(service.id) if t.desired_state <= TaskState.RUNNING]
    running = sum(1 for t in wanted if t.status.state is TaskState.RUNNING)
    is_global = service.spec.mode is ServiceMode.GLOBAL
    return ServiceStatus(running=running, desired=len(wanted) if is_global else service.spec.replicas)


# ---- specs ----


def _depends_on_others(spec: ServiceSpec) -> bool:
    container = spec.task.container
    return bool(spec.endpoint.ports or spec.task.networks or container.secrets or container.configs)


def _checked(view: View, spec: ServiceSpec, service_id: str) -> ServiceSpec:
    """The spec with names resolved and defaults filled. Raises what is wrong with it."""
    spec = msgspec.structs.replace(spec, task=_resolved(view, spec.task))
    validate.require(spec)
    taken = ports.conflict(spec, service_id, view.services.values())
    if taken:
        raise InvalidArgument(taken)
    return defaults.service_spec(spec)


def _resolved(view: View, task: TaskSpec) -> TaskSpec:
    container = msgspec.structs.replace(
        task.container,
        secrets=tuple(_resolved_file(view, Kind.SECRET, ref) for ref in task.container.secrets),
        configs=tuple(_resolved_file(view, Kind.CONFIG, ref) for ref in task.container.configs),
    )
    networks = tuple(_resolved_network(view, attachment) for attachment in task.networks)
    return msgspec.structs.replace(task, container=container, networks=networks)


def _resolved_network(view: View, attachment: NetworkAttachmentSpec) -> NetworkAttachmentSpec:
    if not attachment.target:
        return attachment  # validation says so better
    network = find_network(view, attachment.target)
    if network.spec.ingress:
        raise InvalidArgument(
            f'Service cannot be explicitly attached to the ingress network "{network.spec.annotations.name}"'
        )
    return msgspec.structs.replace(attachment, target=network.id)


def _resolved_file(view: View, kind: Kind, reference: FileReference) -> FileReference:
    ref = reference.id or reference.name
    if not ref:
        return reference
    try:
        found = find_named(kind, view, ref)
    except NotFound:
        raise InvalidArgument(f"{kind} not found: {reference.name or ref}") from None
    name = found.spec.annotations.name  # type: ignore[attr-defined]
    return msgspec.structs.replace(reference, id=found.id, name=name)


def _respecified(service: Service, spec: ServiceSpec) -> Service:
    if spec.annotations.name != service.spec.annotations.name:
        raise InvalidArgument("renaming services is not supported")
    if spec.mode is not service.spec.mode:
        raise InvalidArgument("service mode change is not allowed")
    paused = service.update_status is not None and service.update_status.state in _PAUSED
    if spec == service.spec and not paused:
        return service
    return msgspec.structs.replace(
        service,
        spec=spec,
        # A paused update that is taken up again starts anew: its failures so far do not count.
        spec_version=service.spec_version + 1 if paused else _next_version(service, spec),
        previous_spec=service.spec,
        update_status=None,
    )


def _rolled_back(service: Service, now: float) -> Service:
    previous = service.previous_spec
    if previous is None:
        raise FailedPrecondition(f"service {service.id} does not have a previous spec")
    return msgspec.structs.replace(
        service,
        spec=previous,
        spec_version=_next_version(service, previous),
        previous_spec=service.spec,
        update_status=UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED, started_at=now, message=ROLLBACK_MESSAGE
        ),
    )


def _next_version(service: Service, spec: ServiceSpec) -> int:
    """Tasks are replaced when what they are made from changes: the task, or what it publishes."""
    same = spec.task == service.spec.task and spec.endpoint == service.spec.endpoint
    return service.spec_version if same else service.spec_version + 1
