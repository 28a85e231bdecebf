include(GNUInstallDirs)

# adagate_library(NAME LINKS... [PRIVATE_LINKS ...]): the library target of one folder, made of
# every .cpp under it, so that a new source needs no edit here. Public headers are reached from the
# repository root: #include "core/tensor/tensor.h". Folders named cuda belong to the CUDA backend
# (cmake/AdagateCuda.cmake).
function(adagate_library name)
  cmake_parse_arguments(ARG "" "" "LINKS;PRIVATE_LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}
       ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/cuda/")
  if(NOT sources)
    set(sources ${PROJECT_SOURCE_DIR}/cmake/empty.cpp)
  endif()
  add_library(adagate_${name} STATIC ${sources})
  add_library(adagate::${name} ALIAS adagate_${name})
  set_target_properties(adagate_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(adagate_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/adagate>)
  target_compile_features(adagate_${name} PUBLIC cxx_std_20)
  target_link_libraries(adagate_${name} PUBLIC ${ARG_LINKS}
                        PRIVATE ${ARG_PRIVATE_LINKS} $<BUILD_INTERFACE:adagate_flags>)
  install(TARGETS adagate_${name} EXPORT adagateTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/adagate
          FILES_MATCHING PATTERN "*.h")
endfunction()
