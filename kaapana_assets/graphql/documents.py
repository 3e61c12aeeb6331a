"""The GraphQL documents that :mod:`kaapana_assets.graphql` sends, without code."""

from __future__ import annotations

_PYTHON_ERROR = """
fragment PythonErrorParts on PythonError { message errorChain { error { message } } }
"""

LAUNCH_RUN = (
    """
mutation Launch($params: ExecutionParams!) {
  result: launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
    ... on PipelineNotFoundError { message }
    ... on ConflictingExecutionParamsError { message }
    ... on RunConflict { message }
    ... on UnauthorizedError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

REEXECUTE = (
    """
mutation Reexecute($params: ReexecutionParams!) {
  result: launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
    ... on PipelineNotFoundError { message }
    ... on RunConflict { message }
    ... on UnauthorizedError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

RUN = (
    """
query Run($id: ID!) {
  result: runOrError(runId: $id) {
    __typename
    ... on Run {
      runId jobName status startTime endTime updateTime rootRunId
      tags { key value }
      stepStats { stepKey status startTime endTime }
    }
    ... on RunNotFoundError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

RUNS = (
    """
query Runs($filter: RunsFilter, $limit: Int) {
  result: runsOrError(filter: $filter, limit: $limit) {
    __typename
    ... on Runs { results { runId jobName status startTime endTime updateTime rootRunId tags { key value } } }
    ... on InvalidPipelineRunsFilterError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

EVENTS = (
    """
query Events($id: ID!, $cursor: String, $limit: Int) {
  result: logsForRun(runId: $id, afterCursor: $cursor, limit: $limit) {
    __typename
    ... on EventConnection {
      cursor hasMore
      events {
        __typename
        ... on MessageEvent { message timestamp level stepKey eventType }
        ... on ErrorEvent { error { message errorChain { error { message } } } }
        ... on LogsCapturedEvent { fileKey }
      }
    }
    ... on RunNotFoundError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

PARTITION_STATUS = """
query PartitionStatus($key: AssetKeyInput!) {
  result: assetNodeOrError(assetKey: $key) {
    __typename
    ... on AssetNode {
      assetPartitionStatuses {
        __typename
        ... on DefaultPartitionStatuses {
          materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions
        }
      }
    }
    ... on AssetNotFoundError { message }
  }
}
"""

ADD_PARTITION = (
    """
mutation AddPartition($key: String!, $definition: String!, $repository: RepositorySelector!) {
  result: addDynamicPartition(partitionKey: $key, partitionsDefName: $definition, repositorySelector: $repository) {
    __typename
    ... on UnauthorizedError { message }
    ... on DuplicateDynamicPartitionError { message: partitionName }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

TERMINATE = (
    """
mutation Terminate($id: String!, $policy: TerminateRunPolicy) {
  result: terminateRun(runId: $id, terminatePolicy: $policy) {
    __typename
    ... on TerminateRunFailure { message }
    ... on RunNotFoundError { message }
    ... on UnauthorizedError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

RELOAD = (
    """
mutation Reload($location: String!) {
  result: reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { ...PythonErrorParts } } }
    ... on ReloadNotSupported { message }
    ... on RepositoryLocationNotFound { message }
    ... on UnauthorizedError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

LOCATION = (
    """
query Location($location: String!) {
  result: workspaceLocationEntryOrError(name: $location) {
    __typename
    ... on WorkspaceLocationEntry {
      loadStatus
      locationOrLoadError { __typename ... on PythonError { ...PythonErrorParts } }
    }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

JOB_TAGS = (
    """
query JobTags($selector: PipelineSelector!) {
  result: pipelineOrError(params: $selector) {
    __typename
    ... on Pipeline { tags { key value } }
    ... on PipelineNotFoundError { message }
    ... on InvalidSubsetError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

VERSION = "query Version { result: version }"

DAEMONS = """
query Daemons {
  result: instance {
    __typename
    daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } }
  }
}
"""
