"""Every command of swarmctl, in the order of the help texts; modules are imported when a command is used.

A target is "module:attribute" below cli.commands. This table is the only place that names all commands.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    name: str
    target: str
    help: str


class Noun(NamedTuple):
    name: str
    help: str
    verbs: tuple[Entry, ...]
    aliases: tuple[tuple[str, str], ...] = ()  # further names of verbs, not shown in the help


COMMON = (
    Entry("run", "run:run", "Create and run a new container from an image"),
    Entry("exec", "exec:exec_", "Execute a command in a running container"),
    Entry("ps", "container:ls", "List containers"),
    Entry("build", "build:build", "Build an image from a Dockerfile"),
    Entry("images", "image:ls", "List images"),
    Entry("pull", "distribution:pull", "Download an image from a registry"),
    Entry("push", "distribution:push", "Upload an image to a registry"),
    Entry("login", "login:login", "Authenticate to a registry"),
    Entry("logout", "login:logout", "Log out from a registry"),
    Entry("search", "distribution:search", "Search Docker Hub for images"),
    Entry("version", "system:version", "Show the swarmctl version information"),
    Entry("info", "system:info", "Display system-wide information"),
)

CONTAINER = Noun(
    "container",
    "Manage containers",
    (
        Entry(
            "attach", "exec:attach", "Attach local standard input, output, and error streams to a container"
        ),
        Entry("commit", "commit:commit", "Create a new image from a container's changes"),
        Entry("cp", "copy:cp", "Copy files/folders between a container and the local filesystem"),
        Entry("create", "run:create", "Create a new container"),
        Entry(
            "diff", "container:diff", "Inspect changes to files or directories on a container's filesystem"
        ),
        Entry("exec", "exec:exec_", "Execute a command in a running container"),
        Entry("export", "export:export", "Export a container's filesystem as a tar archive"),
        Entry("inspect", "container:inspect", "Display detailed information on one or more containers"),
        Entry("kill", "container:kill", "Kill one or more running containers"),
        Entry("logs", "container:logs", "Fetch the logs of a container"),
        Entry("ls", "container:ls", "List containers"),
        Entry("pause", "container:pause", "Pause all processes within one or more containers"),
        Entry("port", "container:port", "List port mappings or a specific mapping for the container"),
        Entry("prune", "container:prune", "Remove all stopped containers"),
        Entry("rename", "container:rename", "Rename a container"),
        Entry("restart", "container:restart", "Restart one or more containers"),
        Entry("rm", "container:rm", "Remove one or more containers"),
        Entry("run", "run:run", "Create and run a new container from an image"),
        Entry("start", "exec:start", "Start one or more stopped containers"),
        Entry("stats", "stats:stats", "Display a live stream of container(s) resource usage statistics"),
        Entry("stop", "container:stop", "Stop one or more running containers"),
        Entry("top", "container:top", "Display the running processes of a container"),
        Entry("unpause", "container:unpause", "Unpause all processes within one or more containers"),
        Entry("update", "container:update", "Update configuration of one or more containers"),
        Entry(
            "wait", "container:wait", "Block until one or more containers stop, then print their exit codes"
        ),
    ),
    (("list", "ls"), ("ps", "ls"), ("remove", "rm")),
)

BUILDER = Noun(
    "builder",
    "Manage builds",
    (
        Entry("build", "build:build", "Build an image from a Dockerfile"),
        Entry("prune", "build:prune", "Remove build cache"),
    ),
)

IMAGE = Noun(
    "image",
    "Manage images",
    (
        Entry("build", "build:build", "Build an image from a Dockerfile"),
        Entry("history", "image:history", "Show the history of an image"),
        Entry("import", "image:import_", "Import the contents from a tarball to create a filesystem image"),
        Entry("inspect", "image:inspect", "Display detailed information on one or more images"),
        Entry("load", "image:load", "Load an image from a tar archive or STDIN"),
        Entry("ls", "image:ls", "List images"),
        Entry("prune", "image:prune", "Remove unused images"),
        Entry("pull", "distribution:pull", "Download an image from a registry"),
        Entry("push", "distribution:push", "Upload an image to a registry"),
        Entry("rm", "image:rm", "Remove one or more images"),
        Entry(
            "save", "image:save", "Save one or more images to a tar archive (streamed to STDOUT by default)"
        ),
        Entry("tag", "image:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

NETWORK = Noun(
    "network",
    "Manage networks",
    (
        Entry("connect", "network:connect", "Connect a container to a network"),
        Entry("create", "network:create", "Create a network"),
        Entry("disconnect", "network:disconnect", "Disconnect a container from a network"),
        Entry("inspect", "network:inspect", "Display detailed information on one or more networks"),
        Entry("ls", "network:ls", "List networks"),
        Entry("prune", "network:prune", "Remove all unused networks"),
        Entry("rm", "network:rm", "Remove one or more networks"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

PLUGIN = Noun(
    "plugin",
    "Manage plugins",
    (
        Entry("create", "plugin:create", "Create a plugin from a rootfs and configuration"),
        Entry("disable", "plugin:disable", "Disable a plugin"),
        Entry("enable", "plugin:enable", "Enable a plugin"),
        Entry("inspect", "plugin:inspect", "Display detailed information on one or more plugins"),
        Entry("install", "plugin:install", "Install a plugin"),
        Entry("ls", "plugin:ls", "List plugins"),
        Entry("push", "plugin:push", "Push a plugin to a registry"),
        Entry("rm", "plugin:rm", "Remove one or more plugins"),
        Entry("set", "plugin:set_", "Change settings for a plugin"),
        Entry("upgrade", "plugin:upgrade", "Upgrade an existing plugin"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

SYSTEM = Noun(
    "system",
    "Manage swarmctl",
    (
        Entry("df", "usage:df", "Show disk usage"),
        Entry("dial-stdio", "dial:dial_stdio", "Proxy the stdio stream to the daemon (for ssh:// addresses)"),
        Entry("events", "events:events", "Get real time events from the server"),
        Entry("info", "system:info", "Display system-wide information"),
        Entry("prune", "usage:prune", "Remove unused data"),
    ),
)

VOLUME = Noun(
    "volume",
    "Manage volumes",
    (
        Entry("create", "volume:create", "Create a volume"),
        Entry("inspect", "volume:inspect", "Display detailed information on one or more volumes"),
        Entry("ls", "volume:ls", "List volumes"),
        Entry("prune", "volume:prune", "Remove unused local volumes"),
        Entry("rm", "volume:rm", "Remove one or more volumes"),
        Entry("update", "volume:update", "Update a volume (cluster volumes only)"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

CONTEXT = Noun(
    "context",
    "Manage contexts",
    (
        Entry("create", "context:create", "Create a context"),
        Entry(
            "export", "context:export", "Export a context to a tar archive FILE or a tar stream on STDOUT."
        ),
        Entry("import", "context:import_", "Import a context from a tar or zip file"),
        Entry("inspect", "context:inspect", "Display detailed information on one or more contexts"),
        Entry("ls", "context:ls", "List contexts"),
        Entry("rm", "context:rm", "Remove one or more contexts"),
        Entry("show", "context:show_", "Print the name of the current context"),
        Entry("update", "context:update", "Update a context"),
        Entry("use", "context:use", "Set the default context"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

CONFIG = Noun(
    "config",
    "Manage Swarm configs",
    (
        Entry("create", "payload:config_create", "Create a config from a file or STDIN"),
        Entry("inspect", "payload:config_inspect", "Display detailed information on one or more configs"),
        Entry("ls", "payload:config_ls", "List configs"),
        Entry("rm", "payload:config_rm", "Remove one or more configs"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

NODE = Noun(
    "node",
    "Manage Swarm nodes",
    (
        Entry("demote", "node:demote", "Demote one or more nodes from manager in the swarm"),
        Entry("inspect", "node:inspect", "Display detailed information on one or more nodes"),
        Entry("ls", "node:ls", "List nodes in the swarm"),
        Entry("promote", "node:promote", "Promote one or more nodes to manager in the swarm"),
        Entry("ps", "node:ps", "List tasks running on one or more nodes, defaults to current node"),
        Entry("rm", "node:rm", "Remove one or more nodes from the swarm"),
        Entry("update", "node:update", "Update a node"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

SECRET = Noun(
    "secret",
    "Manage Swarm secrets",
    (
        Entry("create", "payload:secret_create", "Create a secret from a file or STDIN as content"),
        Entry("inspect", "payload:secret_inspect", "Display detailed information on one or more secrets"),
        Entry("ls", "payload:secret_ls", "List secrets"),
        Entry("rm", "payload:secret_rm", "Remove one or more secrets"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

SERVICE = Noun(
    "service",
    "Manage Swarm services",
    (
        Entry("create", "service_write:create", "Create a new service"),
        Entry("inspect", "service:inspect", "Display detailed information on one or more services"),
        Entry("logs", "service:logs", "Fetch the logs of a service or task"),
        Entry("ls", "service:ls", "List services"),
        Entry("ps", "service:ps", "List the tasks of one or more services"),
        Entry("rm", "service:rm", "Remove one or more services"),
        Entry("rollback", "service_write:rollback", "Revert changes to a service's configuration"),
        Entry("scale", "service_write:scale", "Scale one or multiple replicated services"),
        Entry("update", "service_write:update", "Update a service"),
    ),
    (("list", "ls"), ("remove", "rm")),
)

STACK = Noun(
    "stack",
    "Manage Swarm stacks",
    (
        Entry(
            "config", "stack:config", "Outputs the final config file, after doing merges and interpolations"
        ),
        Entry("deploy", "stack:deploy", "Deploy a new stack or update an existing stack"),
        Entry("ls", "stack:ls", "List stacks"),
        Entry("ps", "stack:ps", "List the tasks in the stack"),
        Entry("rm", "stack:rm", "Remove one or more stacks"),
        Entry("services", "stack:services", "List the services in the stack"),
    ),
    (("list", "ls"), ("remove", "rm"), ("down", "rm"), ("up", "deploy")),
)

SWARM = Noun(
    "swarm",
    "Manage Swarm",
    (
        Entry("ca", "swarm:ca", "Display the root CA"),
        Entry("init", "swarm:init", "Initialize a swarm"),
        Entry("join", "swarm:join", "Join a swarm as a node and/or manager"),
        Entry("join-token", "swarm:join_token", "Manage join tokens"),
        Entry("leave", "swarm:leave", "Leave the swarm"),
        Entry("unlock", "swarm:unlock", "Unlock swarm"),
        Entry("unlock-key", "swarm:unlock_key", "Manage the unlock key"),
        Entry("update", "swarm:update", "Update the swarm"),
    ),
)

CLUSTER = Noun(
    "cluster",
    "Back up, restore and check a whole swarm",
    (
        Entry("backup", "cluster:backup", "Write an encrypted backup of the swarm to a file, and verify it"),
        Entry(
            "check",
            "cluster:check",
            "Compare the managers' states and verify their files",
        ),
        Entry(
            "inspect-backup",
            "cluster:inspect_backup",
            "Verify a backup completely and show what is in it; any node will do",
        ),
        Entry(
            "restore",
            "cluster:restore",
            "Found the swarm of a backup anew, with this node as its only manager",
        ),
    ),
)

LAB = Noun(
    "lab",
    "Several nodes on this machine, each in a network namespace of its own",
    (
        Entry("up", "lab:up", "Start the nodes of a lab"),
        Entry("status", "lab:status", "Show the nodes of a lab"),
        Entry("ls", "lab:ls", "List the labs of this machine"),
        Entry("exec", "lab:exec_", "Run a command as if on a node"),
        Entry("env", "lab:env", "Print the shell line that points swarmctl and docker to a node"),
        Entry("kill", "lab:kill", "Cut the power of nodes (kill -9 of everything)"),
        Entry("start", "lab:start", "Power nodes on again"),
        Entry("cut", "lab:cut", "Drop the packets between two nodes"),
        Entry("heal", "lab:heal", "Let packets pass again"),
        Entry("down", "lab:down", "Remove a lab with everything in it"),
    ),
)

MANAGEMENT = (BUILDER, CONTAINER, CONTEXT, IMAGE, NETWORK, PLUGIN, SYSTEM, VOLUME)
SWARM_NOUNS = (CLUSTER, CONFIG, NODE, SECRET, SERVICE, STACK, SWARM)
LAB_NOUNS = (LAB,)

TOP_LEVEL = (
    *(entry for entry in CONTAINER.verbs if entry.name in ("attach", "commit", "cp", "create", "diff")),
    Entry("events", "events:events", "Get real time events from the server"),
    *(entry for entry in CONTAINER.verbs if entry.name == "export"),
    Entry("history", "image:history", "Show the history of an image"),
    Entry("import", "image:import_", "Import the contents from a tarball to create a filesystem image"),
    Entry("inspect", "inspect:inspect", "Return low-level information on objects of any kind"),
    *(entry for entry in CONTAINER.verbs if entry.name == "kill"),
    Entry("load", "image:load", "Load an image from a tar archive or STDIN"),
    *(
        entry
        for entry in CONTAINER.verbs
        if entry.name in ("logs", "pause", "port", "rename", "restart", "rm")
    ),
    Entry("rmi", "image:rm", "Remove one or more images"),
    Entry("save", "image:save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    *(entry for entry in CONTAINER.verbs if entry.name in ("start", "stats", "stop")),
    Entry("tag", "image:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    *(entry for entry in CONTAINER.verbs if entry.name in ("top", "unpause", "update", "wait")),
    Entry("completion", "completion:completion", "Generate the completion script for a shell"),
)

SECTIONS: tuple[tuple[str, tuple[Entry | Noun, ...]], ...] = (
    ("Common Commands", COMMON),
    ("Management Commands", MANAGEMENT),
    ("Swarm Commands", SWARM_NOUNS),
    ("Lab Commands", LAB_NOUNS),
    ("Commands", TOP_LEVEL),
)

BY_NAME: dict[str, Entry | Noun] = {entry.name: entry for _, entries in SECTIONS for entry in entries}

# Words of docker that are no commands here: programs of their own (they are run when they are installed), or things
# that there are not. Name -> what to do instead.
ELSEWHERE = {
    "buildx": "`swarmctl build` builds images; BuildKit's own options need docker's plugin docker-buildx",
    "checkpoint": "containers cannot be frozen to disk: stop and start them, or `swarmctl commit` their files",
    "compose": "install docker-compose (apt install docker-compose-v2), or use `swarmctl stack deploy`",
    "manifest": "use skopeo or regctl; images that were pushed keep their own manifests",
    "model": "docker's plugin docker-model is not installed",
    "scan": "use a scanner such as trivy or grype on `swarmctl save`",
    "scout": "use a scanner such as trivy or grype on `swarmctl save`",
    "trust": "images are not signed here (digests are always checked): use cosign, and pull by digest",
}
