"""Settings of a Kubernetes cluster, for the pods of operators and of runs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kaapana_assets.settings.section import AbsolutePath, Section


class KubernetesSettings(Section):
    """Namespaces, volumes, limits and timeouts in a cluster."""

    kubeconfig: AbsolutePath | None = Field(
        None, description="For `kubernetes`: the file that says where the cluster is; none: that of the pod it runs in."
    )
    kubernetes_namespace: str = Field(
        "flow-jobs", pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of the operators' pods."
    )
    kubernetes_claim: str = Field(
        "kaapana-home",
        pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="PersistentVolumeClaim in that namespace with the volume that holds `KAAPANA_HOME`.",
    )
    kubernetes_claim_path: str = Field(
        "", pattern="^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$", description="Where `KAAPANA_HOME` is in that volume."
    )
    kubernetes_pods: int = Field(10, ge=1, description="Pods of operators at once, of all runs together.")
    kubernetes_parallel: int = Field(4, ge=1, description="For `kubernetes`: pods of one operator at once.")
    kubernetes_node_selector: dict[str, str] = Field(
        {}, description="JSON object: labels of the nodes that operators may run on."
    )
    kubernetes_tolerations: tuple[dict[str, Any], ...] = Field(
        (), description="JSON list: tolerations of operators' pods, as Kubernetes writes them."
    )
    kubernetes_gpu_resource: str = Field("nvidia.com/gpu", description="The name that GPUs have in the cluster.")
    kubernetes_patience_s: float = Field(
        300.0, ge=0, description="Seconds that a pod may wait for a node, and a run for a cluster that is away."
    )
    kubernetes_pod_retention_hours: float = Field(
        24.0, ge=0, description="Hours that pods of failed operators are kept to be looked at."
    )
    kubernetes_memory_mb: int = Field(
        16_384, ge=0, description="Memory limit in MiB of operators that name none (`memory_mb`); `0` sets none."
    )
    kubernetes_scratch_mb: int = Field(
        20_480,
        ge=0,
        description="Limit in MiB of what a pod writes besides its run directory (`/tmp`, `HOME`, output); `0`: none.",
    )
    kubernetes_run_image: str = Field("", description="For runs in pods: the platform's own image (`Dockerfile`).")
    kubernetes_run_namespace: str = Field(
        "kaapana", pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of the runs' pods."
    )
    kubernetes_run_account: str = Field(
        "kaapana-assets-run",
        pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="Service account in that namespace with which runs start operators.",
    )
    kubernetes_run_claim: str = Field(
        "kaapana-home",
        pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="PersistentVolumeClaim in that namespace, on the same volume as `KAAPANA_KUBERNETES_CLAIM`.",
    )
    kubernetes_run_secret: str = Field(
        "",
        pattern="^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$",
        description="Secret in that namespace whose keys are the secret settings, such as `KAAPANA_POSTGRES_PASSWORD`.",
    )
    kubernetes_run_resources: dict[str, dict[str, str]] = Field(
        {"requests": {"cpu": "100m", "memory": "400Mi"}},
        description="JSON object: `requests` and `limits` of a run's pod, as Kubernetes writes them.",
    )
