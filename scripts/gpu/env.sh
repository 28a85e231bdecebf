# Source it: finds the pack that scripts/gpu/pack.sh made (ADAGATE_GPU_PACK, else .gpu in the
# checkout) and NVIDIA's libraries here, and sets what programs of the pack need to start.
# Nothing on the machine is changed. ADAGATE_OUTER_LIBRARY_PATH keeps what LD_LIBRARY_PATH was, for
# programs of this machine's own, such as its PyTorch.
# shellcheck shell=bash

ADAGATE_GPU_PACK=${ADAGATE_GPU_PACK:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.gpu}
export ADAGATE_GPU_PACK
export ADAGATE_OUTER_LIBRARY_PATH=${ADAGATE_OUTER_LIBRARY_PATH-${LD_LIBRARY_PATH:-}}

# adagate_nvidia_folders: one a line, the toolkit's first, then those of Python's packages.
adagate_nvidia_folders() {
  local folder site
  local -a sites=()
  for folder in "${CUDA_HOME:-/usr/local/cuda}"/lib64 /usr/local/cuda-*/lib64 \
    /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu/nvidia/current; do
    if [ -d "$folder" ]; then echo "$folder"; fi
  done
  if command -v python3 >/dev/null; then
    mapfile -t sites < <(python3 -c 'import site, sysconfig
print(sysconfig.get_paths()["purelib"])
print(*site.getsitepackages(), sep="\n")' 2>/dev/null | sort -u)
  fi
  for site in "${sites[@]}"; do
    for folder in "$site"/nvidia/*/lib; do
      if [ -d "$folder" ]; then echo "$folder"; fi
    done
  done
}

# adagate_own_cxx_runtime: the pack's libstdc++ where this machine's is older than the one that the
# programs were linked with; the newer one serves everybody.
adagate_own_cxx_runtime() {
  local theirs ours=$ADAGATE_GPU_PACK/cxx
  theirs=$(ldconfig -p 2>/dev/null | awk '/libstdc\+\+\.so\.6 .*x86-64/ { print $NF; exit }')
  newest() { grep -aoE 'GLIBCXX_3\.4\.[0-9]+' "$1" 2>/dev/null | sort -V | tail -1; }
  if [ -f "$ours/libstdc++.so.6" ] && { [ -z "$theirs" ] ||
    [ "$(printf '%s\n' "$(newest "$theirs")" "$(newest "$ours/libstdc++.so.6")" | sort -V |
      tail -1)" != "$(newest "$theirs")" ]; }; then
    echo "$ours"
  fi
}

adagate_path=$ADAGATE_GPU_PACK/lib
for adagate_folder in $(adagate_own_cxx_runtime) $(adagate_nvidia_folders); do
  adagate_path=$adagate_path:$adagate_folder
done
export LD_LIBRARY_PATH=$adagate_path${ADAGATE_OUTER_LIBRARY_PATH:+:$ADAGATE_OUTER_LIBRARY_PATH}
export PATH=$ADAGATE_GPU_PACK/bin:$PATH
unset adagate_path adagate_folder

# Open MPI, where the pack has one: told where it lies now, and kept to this machine.
if [ -d "$ADAGATE_GPU_PACK/mpi/usr" ]; then
  export PATH=$ADAGATE_GPU_PACK/mpi/usr/bin:$PATH
  export OPAL_PREFIX=$ADAGATE_GPU_PACK/mpi/usr PMIX_INSTALL_PREFIX=$ADAGATE_GPU_PACK/mpi/usr
  adagate_plugins=$ADAGATE_GPU_PACK/mpi/usr/lib/x86_64-linux-gnu
  export OMPI_MCA_mca_base_component_path=$adagate_plugins/openmpi/lib/openmpi3
  export PMIX_MCA_mca_base_component_path=$adagate_plugins/pmix2/lib/pmix
  export PMIX_MCA_pcompress_base_silence_warning=1 OMPI_MCA_plm=isolated
  unset adagate_plugins
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
