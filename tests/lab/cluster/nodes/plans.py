"""LKE plans and what a node of each leaves for pods.

Allocatable, not capacity, decides whether a pod schedules, and it is well below the size in the price
list: the smallest GPU plan (4 CPU, 16 GB) leaves 3.9 CPU and 12.9 GiB, so a pod that asks for 4 CPU
stays Pending for ever. The other plans are scaled from that measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Share of a plan's RAM that pods may use: 12.9 GiB of 16 GB.
_MEMORY_SHARE = 12.9 / 16
#: CPU kept by the system, in thousandths.
_CPU_RESERVED = 100


@dataclass(frozen=True)
class Plan:
    """One plan: its size, and what is left of it for pods."""

    name: str
    cpus: int
    memory_gib: int
    disk_gib: int
    gpus: int = 0

    @property
    def capacity(self) -> dict[str, str]:
        """What the machine has, without the number of pods."""
        return self._with_gpus(
            {
                "cpu": str(self.cpus),
                "memory": f"{self.memory_gib}Gi",
                "ephemeral-storage": f"{self.disk_gib}Gi",
            }
        )

    @property
    def allocatable(self) -> dict[str, str]:
        """What is left for pods, without the number of pods."""
        return self._with_gpus(
            {
                "cpu": f"{self.cpus * 1000 - _CPU_RESERVED}m",
                "memory": f"{int(self.memory_gib * _MEMORY_SHARE * 1024)}Mi",
                "ephemeral-storage": f"{self.disk_gib * 9 // 10}Gi",
            }
        )

    def _with_gpus(self, resources: dict[str, str]) -> dict[str, str]:
        # Without the device plugin's resource the scheduler says "Insufficient", as on a CPU node.
        return resources | ({"nvidia.com/gpu": str(self.gpus)} if self.gpus else {})


_TABLE = (
    Plan("g2-gpu-rtx4000a1-s", 4, 16, 500, gpus=1),
    Plan("g2-gpu-rtx4000a1-m", 8, 32, 500, gpus=1),
    Plan("g2-gpu-rtx4000a1-l", 16, 64, 500, gpus=1),
    Plan("g2-gpu-rtx4000a1-xl", 32, 128, 500, gpus=1),
    Plan("g2-gpu-rtx4000a2-s", 8, 32, 500, gpus=2),
    Plan("g2-gpu-rtx4000a2-m", 16, 64, 500, gpus=2),
    Plan("g2-gpu-rtx4000a2-hs", 16, 64, 1000, gpus=2),
    Plan("g2-gpu-rtx4000a4-s", 32, 128, 1000, gpus=4),
    Plan("g2-gpu-rtx4000a4-m", 48, 196, 1000, gpus=4),
    Plan("g6-standard-2", 2, 4, 80),
    Plan("g6-standard-4", 4, 8, 160),
    Plan("g6-standard-8", 8, 32, 640),
)
PLANS = {plan.name: plan for plan in _TABLE}


def find(name: str) -> Plan:
    """The plan of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in PLANS:
        raise ValueError(f"unknown plan {name!r}; known are {', '.join(PLANS)}")
    return PLANS[name]
