"""Scripts run in this process, for tests and simulations: nothing is mounted, and scripts must be harmless."""

from __future__ import annotations

from pvcd import Clock, SystemClock, TimedOut
from pvcd_plugins.provisioner.installation import InstallFailed, Job, Output
from pvcd_plugins.provisioner.installation.document import document
from pvcd_plugins.provisioner.installation.inside import call, describe


class FakeInstallation:
    """Scripts run in this process. Public names beyond the protocol are for tests."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.jobs: list[Job] = []
        """The jobs that were started, oldest first."""
        self.hangs = False
        """Set to let scripts run until they time out."""
        self._clock = clock or SystemClock()

    async def install(self, job: Job, *, output: Output, limit: float) -> None:
        """Call the script's `install()`; its `print` writes to the output."""
        kwargs = document(job)["kwargs"]
        self.jobs.append(job)
        if self.hangs:
            await self._clock.sleep(limit)
            raise TimedOut(f"The script did not finish within {limit:g} s and was ended.")
        lines: list[str] = []
        failed = None
        try:
            call(job.script, kwargs, print=lambda *words: lines.extend(" ".join(map(str, words)).split("\n")))
        except (Exception, SystemExit) as error:  # a script may raise anything
            failed = describe(error)
        for line in lines:
            await output(line)
        if failed is not None:
            raise InstallFailed(failed)
