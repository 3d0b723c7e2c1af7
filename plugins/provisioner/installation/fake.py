"""Installing in memory, for tests and simulations: nothing is mounted, and scripts run here: let them be harmless."""

from __future__ import annotations

from pvcd import Clock, SystemClock, TimedOut
from pvcd_plugins.provisioner.installation import InstallFailed, Job, Output
from pvcd_plugins.provisioner.installation.document import document
from pvcd_plugins.provisioner.installation.inside import call, describe


class FakeInstallation:
    """What is public beyond the protocol is for the one who scripts it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.jobs: list[Job] = []
        """Those that began, oldest first."""
        self.hangs = False
        """Whether scripts come to no end."""
        self._clock = clock or SystemClock()

    async def install(self, job: Job, *, output: Output, limit: float) -> None:
        """Call the script's `install()`, in which `print` writes to the output."""
        kwargs = document(job)["kwargs"]
        self.jobs.append(job)
        if self.hangs:
            await self._clock.sleep(limit)
            raise TimedOut(f"The script did not finish within {limit:g} s and was ended.")
        lines: list[str] = []
        failed = None
        try:
            call(job.script, kwargs, print=lambda *words: lines.extend(" ".join(map(str, words)).split("\n")))
        except (Exception, SystemExit) as error:  # a script may raise whatever it likes
            failed = describe(error)
        for line in lines:
            await output(line)
        if failed is not None:
            raise InstallFailed(failed)
