// The unmodified Linode cloud controller manager, built for tests/controlplane/test_real_ccm.py.
//
// v0.9.8 is commit 8af0e9cd; the recordings were made with b9aa9012, which differs in documentation and indirect
// dependencies only. A module's own replaces do not count for its users, so they are repeated here.
//
// Build: go build -mod=mod -o BINARY github.com/linode/linode-cloud-controller-manager
// (-mod=mod: the checksums of the release itself are added on the first build; go.sum holds those of its own go.sum).
module lab-tools-ccm

go 1.26.4

tool github.com/linode/linode-cloud-controller-manager

require github.com/linode/linode-cloud-controller-manager v0.9.8

replace (
	github.com/linode/linodego/v2 => github.com/linode/linodego/v2 v2.0.0-20260601073839-52f201e73a60
	k8s.io/cluster-bootstrap => k8s.io/cluster-bootstrap v0.35.4
	k8s.io/cri-api => k8s.io/cri-api v0.35.4
	k8s.io/cri-client => k8s.io/cri-client v0.35.4
	k8s.io/csi-translation-lib => k8s.io/csi-translation-lib v0.35.4
	k8s.io/dynamic-resource-allocation => k8s.io/dynamic-resource-allocation v0.35.4
	k8s.io/externaljwt => k8s.io/externaljwt v0.35.4
	k8s.io/kube-aggregator => k8s.io/kube-aggregator v0.35.4
	k8s.io/kube-controller-manager => k8s.io/kube-controller-manager v0.35.4
	k8s.io/kube-proxy => k8s.io/kube-proxy v0.35.4
	k8s.io/kube-scheduler => k8s.io/kube-scheduler v0.35.4
	k8s.io/kubelet => k8s.io/kubelet v0.35.4
	k8s.io/metrics => k8s.io/metrics v0.35.4
	k8s.io/mount-utils => k8s.io/mount-utils v0.35.4
	k8s.io/pod-security-admission => k8s.io/pod-security-admission v0.35.4
	k8s.io/sample-apiserver => k8s.io/sample-apiserver v0.35.4
)
