"""`swarmctl login`, `logout`: accounts at registries, checked by the daemon, kept in docker's files."""

from __future__ import annotations

import sys

import click

from cli import credentials
from cli.client import Client
from cli.command import command
from cli.errors import ApiError, CliError, UsageError
from cli.output import show, warn
from cli.terminal import is_terminal


@command("[SERVER]")
@click.argument("server", default="")
@click.option("-u", "--username", default="", help="Username")
@click.option("-p", "--password", default="", help="Password or Personal Access Token (PAT)")
@click.option(
    "--password-stdin", is_flag=True, help="Take the Password or Personal Access Token (PAT) from stdin"
)
@click.pass_obj
def login(client: Client, server: str, username: str, password: str, password_stdin: bool) -> None:
    """Authenticate to a registry"""
    name = credentials.server_name(server)
    if password:
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if password_stdin:
            raise UsageError("conflicting options: cannot specify both --password and --password-stdin")
    if password_stdin:
        if not username:
            raise UsageError("the --password-stdin option requires --username")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
        if not password:
            raise UsageError("password is empty", hint="give it to the standard input")
    known = credentials.find(name) if not (username or password) else None
    if known is not None and _with_known(client, name, known):
        return
    account = _asked(name, username or (known or {}).get("username", ""), password)
    _log_in(client, name, account)


def _with_known(client: Client, name: str, known: credentials.Account) -> bool:
    """False when the registry does not take the account any more."""
    show(f"Authenticating with existing credentials... [Username: {known.get('username', '')}]")
    try:
        _log_in(client, name, known)
    except ApiError as error:
        warn(f"Login did not succeed, error: {error.message}")
        return False
    return True


def _log_in(client: Client, name: str, account: credentials.Account) -> None:
    answer = client.post("/auth", {**account, "serveraddress": name})
    token = (answer or {}).get("IdentityToken", "")
    kept = {"username": account.get("username", ""), "identitytoken": token} if token else account
    if credentials.store(name, kept):
        warn(
            f"\nWARNING! Your credentials are stored unencrypted in '{credentials.config_path()}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    show((answer or {}).get("Status") or "Login Succeeded")


def _asked(name: str, username: str, password: str) -> credentials.Account:
    """What is missing is asked for, without showing the password."""
    if not (username and password) and not is_terminal(0):
        raise CliError(
            "cannot perform an interactive login from a non TTY device", hint="use -u NAME --password-stdin"
        )
    if not username:
        sys.stdout.write("Username: ")
        sys.stdout.flush()
        username = sys.stdin.readline().strip()
    if not username:
        raise CliError("username is required", hint=f"an account at {name}")
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
    if not password:
        raise CliError("password is required")
    return {"username": username, "password": password}


@command("[SERVER]")
@click.argument("server", default="")
@click.pass_obj
def logout(_client: Client, server: str) -> None:
    """Log out from a registry"""
    name = credentials.server_name(server)
    if not credentials.erase(name) and server:
        show(f"Not logged in to {name}")
        return
    show(f"Removing login credentials for {name}")
