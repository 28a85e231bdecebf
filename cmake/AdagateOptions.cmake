option(ADAGATE_NATIVE "Compile for this machine's instruction set (-march=native)" ON)
option(ADAGATE_OPENMP "Thread the CPU kernels with OpenMP" ON)
option(ADAGATE_ONEDNN "Matrix products through oneDNN when it is installed" ON)
set(ADAGATE_CUDA AUTO CACHE STRING
    "Build the CUDA backend: AUTO (where the CUDA toolkit is found), ON or OFF")
set_property(CACHE ADAGATE_CUDA PROPERTY STRINGS AUTO ON OFF)
option(ADAGATE_BUILD_TESTS "Build the tests" ON)
set(ADAGATE_SANITIZE "" CACHE STRING "Sanitizers to compile with, as for -fsanitize=")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(ADAGATE_CCACHE ccache)
  if(ADAGATE_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${ADAGATE_CCACHE})
  endif()
endif()

# ADAGATE_HAVE_CUDA: the backend is built.
set(ADAGATE_HAVE_CUDA OFF)
if(NOT ADAGATE_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit 12.4 QUIET)
  if(CUDAToolkit_FOUND)
    set(ADAGATE_HAVE_CUDA ON)
  elseif(NOT ADAGATE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR
            "ADAGATE_CUDA is ${ADAGATE_CUDA}, and no CUDA toolkit from 12.4 on is found: "
            "install it, or name its folder with -DCUDAToolkit_ROOT=...")
  endif()
endif()
if(ADAGATE_HAVE_CUDA)
  # Set before the language is enabled, which would choose for itself.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING "")
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE} CACHE FILEPATH "nvcc")
  endif()
  if(ADAGATE_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${ADAGATE_CCACHE})
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know nvcc's C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  # fmt takes nvcc for a compiler without constexpr, and then fails its own checks.
  add_compile_definitions($<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1>)
endif()
message(STATUS "CUDA backend: ${ADAGATE_HAVE_CUDA} ${CUDAToolkit_VERSION}")

# Flags every target of the project shares; linked privately, never installed.
add_library(adagate_flags INTERFACE)
target_compile_options(adagate_flags INTERFACE -Wall -Wextra -Werror=return-type
                       # Sums may be reordered only where a loop says so (omp simd reduction).
                       -fno-math-errno -fno-trapping-math)
if(NOT ADAGATE_OPENMP)
  # Loops marked `omp simd` still vectorise; the other pragmas are ignored without a word.
  target_compile_options(adagate_flags INTERFACE -fopenmp-simd)
endif()
if(ADAGATE_NATIVE)
  target_compile_options(adagate_flags INTERFACE -march=native)
  # g++ prefers 256-bit vectors by default; the kernels gain from full-width ones.
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-mprefer-vector-width=512 ADAGATE_HAS_VECTOR_WIDTH)
  if(ADAGATE_HAS_VECTOR_WIDTH)
    target_compile_options(adagate_flags INTERFACE -mprefer-vector-width=512)
  endif()
endif()
if(ADAGATE_SANITIZE)
  target_compile_options(adagate_flags INTERFACE -fsanitize=${ADAGATE_SANITIZE}
                         -fno-omit-frame-pointer -fno-sanitize-recover=all -g)
  target_link_options(adagate_flags INTERFACE -fsanitize=${ADAGATE_SANITIZE})
endif()
