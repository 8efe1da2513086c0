"""Which driver makes a site's copies."""

from hikeshi.copies.by_hand import ByHand
from hikeshi.copies.driver import Driver
from hikeshi.copies.podman import Podman
from hikeshi.errors import MisconfiguredError
from hikeshi.site import CopiesByHand, PodmanCopies, Site, shown


def driver_of(site: Site) -> Driver:
    """Return the driver that the site names; refuse where it names none."""
    data = site.data.copying
    if isinstance(data, PodmanCopies):
        return Podman(data, site.records.name)
    if isinstance(data, CopiesByHand):
        return ByHand(site.name)
    raise MisconfiguredError(
        f"{shown(site.folder)}/site.yml does not say how instances are copied; `copy` needs a driver: podman, none.",
        "write `copy: {driver: none, instances: {HOST: NAME-AT-THE-CLOUD}}` there, as in inventories/example/site.yml",
    )
