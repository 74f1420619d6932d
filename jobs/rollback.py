"""The released pointer moves back."""

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, read_config, tell
from jobs.lines import say, then


def command(config: ConfigFile = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Release again what was released before; publish holds back what that leaves until its rows change."""
    from pipeline.lake.run import Run
    from pipeline.release.rollback import rollback

    with Run("rollback", read_config(config, overrides)) as run:
        release = rollback(run)
    tell(run)
    say(f"  released tokenizer {release.tokenizer} again, as release {release.version}", run)
    say("  what was rolled back from is held until a row of it changes", run)
    then("status", config)
