{{- define "ai-sandbox.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide objects bear the namespace too: two releases of one name may live in two namespaces. */}}
{{- define "ai-sandbox.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "ai-sandbox.fullname" .) -}}
{{- end -}}

{{- define "ai-sandbox.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ai-sandbox.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The first label is the one by which the NetworkPolicies of sandboxes admit the operator. */}}
{{- define "ai-sandbox.selector" -}}
app.kubernetes.io/name: ai-sandbox-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "ai-sandbox.labels" -}}
{{ include "ai-sandbox.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/part-of: ai-sandbox
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | quote }}
{{- end -}}

{{/* The labels, and over them those of a value: chart and value may name the same one. */}}
{{- define "ai-sandbox.mergedLabels" -}}
{{- mergeOverwrite (include "ai-sandbox.labels" (index . 0) | fromYaml) (index . 1) | toYaml -}}
{{- end -}}

{{- define "ai-sandbox.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Port of a URL, as a list of one. */}}
{{- define "ai-sandbox.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port -}}
{{- end -}}

{{- define "ai-sandbox.subject" -}}
- kind: ServiceAccount
  name: {{ include "ai-sandbox.serviceAccountName" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}
