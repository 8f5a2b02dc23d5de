"""Carries out a plan: stage after stage, instruction after instruction, each making an image out of the one before.

Invariant: a step's image exists as a whole or not at all, and what a step needed meanwhile (roots, downloads,
containers that nobody asked to keep) is gone when it ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.build_config import BuildOptions
from engine.building import metadata
from engine.building.arguments import BuildArguments
from engine.building.cache import Cached, Step, StepCache
from engine.building.contexts import BuildContext
from engine.building.copying import make_directory
from engine.building.images import describe_step
from engine.building.instructions import Instruction, parse_change
from engine.building.journal import Journal
from engine.building.platforms import matches_platform, platform_problem, wanted_architecture
from engine.building.roots import Roots
from engine.building.running import CommandRunner
from engine.building.stages import Plan, Stage
from engine.building.transfers import Transfer, prepare_transfer
from engine.building.words import expand
from engine.completion import to_its_end
from engine.container import Container
from engine.errors import EngineError, EngineFailure, InvalidParameter, NotFound
from engine.images.config import Image
from engine.images.made import add_child
from engine.images.store import ImageStore
from engine.process import DEFAULT_PATH
from engine.storage.driver import Rootfs

Message = dict[str, Any]
Emit = Callable[[Message], Awaitable[None]]
SHORT_ID = slice(7, 19)


class CommandFailed(EngineError):
    """A RUN whose command did not end with 0."""

    def __init__(self, command: Sequence[str], exit_code: int) -> None:
        super().__init__(f"The command '{' '.join(command)}' returned a non-zero code: {exit_code}")
        self.exit_code = exit_code


class Workshop(NamedTuple):
    """What of the engine a build works with. `pull(name, platform)` yields Docker's progress messages."""

    store: ImageStore
    roots: Roots
    runner: CommandRunner
    pull: Callable[[str, str], AsyncIterator[Message]]


class StageState:
    """How far one stage is. `image` is None on top of nothing."""

    def __init__(self, index: int, image: Image | None) -> None:
        self.index = index
        self.image = image
        self.config: metadata.Config = dict((image.raw.get("config") or {}) if image else {})
        self.author = ""
        self.command_is_set = False
        self.triggers = list(self.config.pop("OnBuild", None) or ())
        if "PATH" not in metadata.environment(self.config):
            self.config["Env"] = [*(self.config.get("Env") or ()), f"PATH={DEFAULT_PATH}"]


class Builder:
    def __init__(
        self,
        options: BuildOptions,
        plan: Plan,
        context: BuildContext,
        journal: Journal,
        shop: Workshop,
        emit: Emit,
    ) -> None:
        self._options, self._plan, self._context = options, plan, context
        self._journal, self._shop, self._emit = journal, shop, emit
        self._arguments = BuildArguments(options.build_args)
        self._cache = StepCache(shop.store, options.cache_from, is_off=options.no_cache)
        self._finished: list[tuple[str, Image | None]] = []
        self._step = 0
        self._platform = options.platform

    async def build(self) -> Image:
        """The image of the last stage of the plan."""
        for warning in self._plan.warnings:
            await self._say(f"{warning}\n")
        for instruction in self._plan.arguments:
            await self._announce(instruction)
            for name, default in instruction.pairs:
                value = (
                    None if default is None else expand(default, self._arguments.meta(), instruction.escape)
                )
                self._arguments.declare_meta(name, value)
        for index, stage in enumerate(self._plan.stages):
            self._finished.append((stage.name, await self._build_stage(index, stage)))
        if unused := self._arguments.unused():
            await self._say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        image = self._finished[-1][1]
        if image is None:
            raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
        return image

    # ---- stages -------------------------------------------------------------------------------------------

    async def _build_stage(self, index: int, stage: Stage) -> Image | None:
        self._arguments.begin_stage()
        self._cache.begin_stage()
        await self._announce(stage.source)
        state = StageState(index, await self._base(stage.source))
        if state.triggers:
            count = len(state.triggers)
            await self._say(f"# Executing {count} build trigger{'s' if count != 1 else ''}\n")
        for trigger in state.triggers:
            await self._dispatch(state, parse_change(trigger))
        await self._show(state)
        for instruction in stage.instructions:
            await self._announce(instruction)
            await self._dispatch(state, instruction)
            await self._show(state)
        return state.image

    async def _base(self, source: Instruction) -> Image | None:
        variables = self._arguments.meta()
        name = expand(source.words[0], variables, source.escape)
        platform = (
            expand(source.flags.get("platform", ""), variables, source.escape) or self._options.platform
        )
        if not name:
            raise InvalidParameter(f"base name ({source.words[0]}) should not be blank")
        if problem := platform_problem(platform):
            raise InvalidParameter(problem)
        self._platform = platform
        for stage_name, image in self._finished:
            if stage_name and stage_name == name.lower():
                return image
        return None if name == "scratch" else await self._obtain(name, platform)

    async def _obtain(self, name: str, platform: str) -> Image:
        """The image of that name; fetched when it is not here, or another platform's, or `pull` is wanted."""
        if not self._options.pull:
            with contextlib.suppress(NotFound):
                image = self._shop.store.resolve(name)
                if matches_platform(image, platform):
                    return image
        async with contextlib.aclosing(self._shop.pull(name, platform)) as messages:  # type: ignore[type-var]
            async for message in messages:
                await self._emit(message)
        image = self._shop.store.resolve(name)
        if not matches_platform(image, platform):
            raise InvalidParameter(
                f"image with reference {name} was found but does not match the specified platform: wanted "
                f"{platform}, actual: {image.os}/{image.architecture}"
            )
        return image

    # ---- instructions -------------------------------------------------------------------------------------

    async def _dispatch(self, state: StageState, instruction: Instruction) -> None:
        if instruction.keyword == "RUN":
            await self._run(state, instruction)
        elif instruction.keyword in ("COPY", "ADD"):
            await self._copy(state, instruction)
        elif instruction.keyword == "ARG":
            await self._commit(state, self._declare(state, instruction))
        elif instruction.keyword == "MAINTAINER":
            state.author = instruction.words[0]
            await self._commit(state, f"MAINTAINER {state.author}")
        else:
            await self._configure(state, instruction)

    def _declare(self, state: StageState, instruction: Instruction) -> str:
        shown = []
        for raw_name, raw_default in instruction.pairs:
            variables = self._variables(state)
            name = expand(raw_name, variables, instruction.escape)
            default = None if raw_default is None else expand(raw_default, variables, instruction.escape)
            default = self._arguments.declare(name, default)
            shown.append(name if default is None else f"{name}={default}")
        return "ARG " + " ".join(shown)

    async def _configure(self, state: StageState, instruction: Instruction) -> None:
        state.config, comment = metadata.apply(state.config, instruction, self._variables(state))
        if instruction.keyword == "CMD":
            state.command_is_set = True
        elif instruction.keyword == "ENTRYPOINT" and not state.command_is_set:
            state.config.pop("Cmd", None)
        folder = state.config["WorkingDir"] if instruction.keyword == "WORKDIR" else ""
        await self._commit(state, comment, folder)

    async def _commit(self, state: StageState, comment: str, folder: str = "") -> None:
        """A step without files; at most, for WORKDIR, its folder."""
        shell = " ".join(metadata.shell_of(state.config))
        step = Step(created_by=f"{shell} #(nop)  {comment}", config=state.config, author=state.author)
        change = (lambda root, _: _make(root, folder)) if folder else None
        await self._take(state, step, lambda: self._made(state, step, change))

    async def _run(self, state: StageState, instruction: Instruction) -> None:
        command = metadata.command_words(instruction, metadata.shell_of(state.config))
        environment = metadata.environment(state.config)
        used = [f"{name}={value}" for name, value in sorted(self._arguments.effective(environment).items())]
        remembered = [f"|{len(used)}", *used, *command] if used else command
        step = Step(
            created_by=" ".join(remembered), config=state.config, author=state.author, words=tuple(remembered)
        )
        if cached := self._cache.find(state.image, step):
            await self._take(state, step, lambda: (self._restored(state, step, cached), True))
            return
        if state.image is None:
            raise InvalidParameter(
                f"cannot run '{' '.join(command)}': there is nothing in scratch to run it with"
            )
        proxies = [f"{name}={value}" for name, value in self._arguments.proxies(environment).items()]
        host = self._options.host_config()
        container = await self._shop.runner.create(
            self._journal, state.image, command, [*used, *proxies], host
        )
        await self._run_in(state, step, container, command)

    async def _run_in(
        self, state: StageState, step: Step, container: Container, command: Sequence[str]
    ) -> None:
        keeps = False
        try:
            await self._say(f" ---> Running in {container.short_id}\n")
            exit_code = await self._shop.runner.run(container, self._say)
            if exit_code:
                raise CommandFailed(command, exit_code)
            await self._take(state, step, lambda: self._taken_from(state, step, container))
            keeps = not (self._options.rm or self._options.force_rm)
        except EngineError:
            keeps = not self._options.force_rm
            if not keeps:
                await self._shop.runner.remove(container)
                await self._say(f" ---> Removed intermediate container {container.short_id}\n")
            raise
        finally:
            if not keeps:
                await asyncio.shield(self._shop.runner.remove(container))
        if not keeps:
            await self._say(f" ---> Removed intermediate container {container.short_id}\n")

    def _taken_from(self, state: StageState, step: Step, container: Container) -> tuple[Image, bool]:
        with self._shop.roots.written_by(container.id) as layer:
            return add_child(
                self._shop.store, state.image, self._describe(state, step), layer, step=step.key
            ), False

    async def _copy(self, state: StageState, instruction: Instruction) -> None:
        source_image: Image | None = None
        if wanted := instruction.flags.get("from", ""):
            source_image = await self._source_image(state, wanted)
        variables = self._variables(state)
        try:
            transfer = await prepare_transfer(instruction, state.config, variables, self._journal.folder)

            def work() -> tuple[Image, bool]:
                if not wanted:
                    return self._transferred(state, transfer, self._context.root)
                with self._shop.roots.opened(source_image) as root:
                    return self._transferred(state, transfer, root)

            image, is_cached = await to_its_end(work)
        except InvalidParameter as error:
            raise InvalidParameter(f"{instruction.keyword} failed: {error}") from error
        except OSError as error:
            raise EngineFailure(f"{instruction.keyword} failed: {error}") from error
        await self._reached(state, image, is_cached=is_cached)

    def _transferred(self, state: StageState, transfer: Transfer, root: Path) -> tuple[Image, bool]:
        sources, comment = transfer.found(root)
        shell = " ".join(metadata.shell_of(state.config))
        step = Step(created_by=f"{shell} #(nop) {comment}", config=state.config, author=state.author)
        return self._made(state, step, lambda target, rootfs: transfer.carry_out(target, rootfs, sources))

    async def _source_image(self, state: StageState, wanted: str) -> Image | None:
        """Of COPY --from: an earlier stage by name or number, or an image."""
        for name, image in self._finished:
            if name and name == wanted.lower():
                return image
        if wanted.isdecimal():
            if int(wanted) == state.index:
                raise InvalidParameter(f"invalid from flag value {wanted}: refers to current build stage")
            if int(wanted) >= len(self._finished):
                raise InvalidParameter(f"invalid from flag value {wanted}: invalid stage index")
            return self._finished[int(wanted)][1]
        if wanted.lower() == self._plan.stages[state.index].name:
            raise InvalidParameter(f"invalid from flag value {wanted}: refers to current build stage")
        return await self._obtain(wanted, self._platform)

    # ---- images -------------------------------------------------------------------------------------------

    async def _take(self, state: StageState, step: Step, work: Callable[[], tuple[Image, bool]]) -> None:
        image, is_cached = await to_its_end(work)
        await self._reached(state, image, is_cached=is_cached)

    async def _reached(self, state: StageState, image: Image, *, is_cached: bool) -> None:
        state.image = image
        if is_cached:
            await self._say(" ---> Using cache\n")

    def _made(
        self, state: StageState, step: Step, change: Callable[[Path, Rootfs], None] | None
    ) -> tuple[Image, bool]:
        """The image of a step, and whether it was there."""
        if cached := self._cache.find(state.image, step):
            return self._restored(state, step, cached), True
        describe = self._describe(state, step)
        if change is None:
            return add_child(self._shop.store, state.image, describe, None, step=step.key), False
        with self._shop.roots.changed(state.image, change) as layer:
            return add_child(self._shop.store, state.image, describe, layer, step=step.key), False

    def _restored(self, state: StageState, step: Step, cached: Cached) -> Image:
        if not cached.is_part:
            return cached.image
        describe = self._describe(state, step)
        if cached.layer is None:
            return add_child(self._shop.store, state.image, describe, None, step=step.key)
        layer = cached.image.blobs[cached.layer]
        return add_child(self._shop.store, state.image, describe, layer, step=step.key)

    def _describe(self, state: StageState, step: Step) -> Callable[[Sequence[str], bool], Message]:
        return describe_step(
            state.image,
            step.config,
            step.created_by,
            author=step.author,
            architecture=wanted_architecture(self._platform),
        )

    def _variables(self, state: StageState) -> dict[str, str]:
        environment = metadata.environment(state.config)
        return {**self._arguments.effective(environment), **environment}

    # ---- what the client reads ----------------------------------------------------------------------------

    async def _announce(self, instruction: Instruction) -> None:
        self._step += 1
        await self._say(f"Step {self._step}/{self._plan.steps} : {instruction.text}")
        await self._say("\n")

    async def _show(self, state: StageState) -> None:
        await self._say(f" ---> {state.image.id[SHORT_ID] if state.image else ''}\n")

    async def _say(self, text: str) -> None:
        await self._emit({"stream": text})


def _make(root: Path, folder: str) -> None:
    make_directory(root, folder)
