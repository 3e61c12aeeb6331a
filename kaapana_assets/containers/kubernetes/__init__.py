"""The runner that launches operators as pods of a Kubernetes cluster: one Job with one pod per launch.

The rest of the platform uses ``runner`` only. ``job`` writes manifests and ``diagnosis`` interprets pod
statuses, both without a cluster. Only ``api`` talks to the cluster, and translates its errors. ``pod_watch``
follows one pod and its log; ``pod_wait`` decides how long to wait for it, and reports its end.
"""

import os

from kaapana_assets.containers.kubernetes.api import Cluster
from kaapana_assets.containers.kubernetes.job import ClusterTarget
from kaapana_assets.containers.kubernetes.runner import KubernetesRunner
from kaapana_assets.settings import Settings

__all__ = ["Cluster", "ClusterTarget", "KubernetesRunner", "open_kubernetes"]


def open_kubernetes(settings: Settings) -> KubernetesRunner:
    """Open the Kubernetes runner that the settings describe.

    Raises:
        ConfigurationError: the settings do not say where the cluster is, or the operators' user differs from
            the platform's, which is not root.
    """
    target = ClusterTarget(
        namespace=settings.kubernetes_namespace,
        claim=settings.kubernetes_claim,
        claim_path=settings.kubernetes_claim_path,
        home=settings.home,
        uid=settings.operator_uid,
        node_selector=settings.kubernetes_node_selector,
        tolerations=settings.kubernetes_tolerations,
        gpu_resource=settings.kubernetes_gpu_resource,
        pods=settings.kubernetes_pods,
        parallel=settings.kubernetes_parallel,
        patience_s=settings.kubernetes_patience_s,
        retention_s=settings.kubernetes_pod_retention_hours * 3600,
        memory_mb=settings.kubernetes_memory_mb,
        scratch_mb=settings.kubernetes_scratch_mb,
    )
    cluster = Cluster(settings.kubeconfig, namespace=target.namespace, patience_s=target.patience_s)
    return KubernetesRunner(
        cluster,
        target,
        images=settings.images,
        registry=settings.image_registry,
        suffix=settings.image_tag_suffix,
        own_uid=os.geteuid(),
    )
