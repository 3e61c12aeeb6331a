"""A runner that refuses images whose content has changed since the workflows were loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from kaapana_assets.containers.protocol import Launch, Outcome, Runner
from kaapana_assets.errors import OperatorFailed


class PinnedRunner:
    """Wraps a runner and refuses images that have changed.

    Args:
        runner: the wrapped runner.
        images: expected content digest of each image, by the reference that the author wrote.
    """

    def __init__(self, runner: Runner, images: Mapping[str, str]) -> None:
        self._runner = runner
        self._images = images

    @property
    def isolates(self) -> bool:
        """See ``Runner.isolates``."""
        return self._runner.isolates

    @property
    def parallel_launches(self) -> int:
        """See ``Runner.parallel_launches``."""
        return self._runner.parallel_launches

    def check(self) -> str:
        """See ``Runner.check``."""
        return self._runner.check()

    def adopts(self, launch: Launch) -> bool:
        """See ``Runner.adopts``."""
        return self._runner.adopts(launch)

    def end_left(self, run_id: str) -> None:
        """See ``Runner.end_left``."""
        self._runner.end_left(run_id)

    def image_digest(self, image: str) -> str:
        """Return the digest of the image's content; see ``Runner.image_digest``.

        Raises:
            OperatorFailed: the content has changed since the workflows were loaded.
        """
        found = self._runner.image_digest(image)
        if found != self._images.get(image, found):
            raise OperatorFailed(
                f"image {image} is not the one any more that the workflows were loaded with: it was changed "
                "meanwhile; send the cohort again"
            )
        return found

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """See ``Runner.run``."""
        return self._runner.run(launch, output=output, cancelled=cancelled)
