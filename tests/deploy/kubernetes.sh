# The manifests: rendered by kustomize, held against Kubernetes' schemas, against checkov's rules and against ours.
# shellcheck shell=bash
: "${work:?is sourced by run}" "${light?}" "${checkov?}" "${kustomize?}"

# An overlay of the base with one component.
overlay() {
    mkdir -p "$work/kubernetes/with-$1"
    printf 'namespace: crier\nresources: [../base]\ncomponents: [../components/%s]\n' "$1" \
        >"$work/kubernetes/with-$1/kustomization.yaml"
}

render() {
    kustomize_of "$kustomize" "$work/kubernetes/$1" >"$work/$1.yaml"
}

# Every object passes under --strict, but for kinds that a cluster knows from their operators.
fits_the_schemas() {
    local said beyond
    said=$("$light/kubernetes-validate" --strict "$1" 2>&1) || { printf '%s\n' "$said"; return 1; }
    beyond=$(printf '%s\n' "$said" | grep -v ' passed for resource ' |
        grep -v "find schema for kind ScaledObject with api version keda.sh/v1alpha1 \|find schema for kind ServiceMonitor with api version monitoring.coreos.com/v1 ") || true
    [ -z "$beyond" ] || { printf '%s\n' "$beyond"; return 1; }
}

# A misspelt field of a pod must be found.
misspelt_is_found() {
    sed 's/terminationGracePeriodSeconds/terminationGraceSeconds/' "$work/base.yaml" >"$work/misspelt.yaml"
    ! fits_the_schemas "$work/misspelt.yaml" || { echo "a misspelt field passed"; return 1; }
}

# Not asked for: a digest (CKV_K8S_43) and a pull at each start (CKV_K8S_15) are the operator's choice of image.
good_practice() {
    HOME=$work "$checkov/checkov" --framework kubernetes --quiet --compact --skip-download \
        --skip-check CKV_K8S_43,CKV_K8S_15 --file "$1"
}

privileged_is_found() {
    sed 's/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/' "$work/base.yaml" >"$work/privileged.yaml"
    ! good_practice "$work/privileged.yaml" || { echo "a privilege passed"; return 1; }
}

if [ -z "$light" ] || [ -z "$kustomize" ]; then
    cannot "the manifests" "kubernetes-validate or kustomize can't be had"
else
    cp -r deploy/kubernetes "$work/kubernetes"
    rendered=(base example with-single-node-sqlite)
    overlay single-node-sqlite
    for name in "${rendered[@]}"; do
        check "$name is rendered" render "$name"
        check "$name fits the schemas" fits_the_schemas "$work/$name.yaml"
        check "$name does what crier needs" "$light/python" tests/deploy/manifests.py "$CRIER_BIN" "$work/$name.yaml"
    done
    check "a misspelt field is found" misspelt_is_found
    check "what breaks the rules is found" "$light/python" tests/deploy/manifests.py --broken "$CRIER_BIN" "$work/base.yaml"
    if [ -n "$checkov" ]; then
        check "checkov finds nothing in example" good_practice "$work/example.yaml"
        check "checkov finds a privilege" privileged_is_found
    else
        cannot "good practice of the manifests" "checkov can't be had"
    fi
fi
