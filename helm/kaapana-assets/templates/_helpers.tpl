{{- define "kaapana-assets.labels" -}}
app.kubernetes.io/name: kaapana-assets
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "kaapana-assets.runnerNamespace" -}}
{{ .Values.runner.namespace | default .Release.Namespace }}
{{- end }}
