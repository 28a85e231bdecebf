# adagate_add_header_check(TARGET FOLDERS ... LINKS ...): an object library that shows that every
# header of FOLDERS stands on its own. A header that is the first include of a source is shown by
# that source; each other one gets a source of its own here. Not part of `all`.
function(adagate_add_header_check target)
  cmake_parse_arguments(ARG "" "" "FOLDERS;LINKS" ${ARGN})
  set(units)
  foreach(folder IN LISTS ARG_FOLDERS)
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
         ${PROJECT_SOURCE_DIR}/${folder}/*.h)
    file(GLOB_RECURSE sources ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
    foreach(source IN LISTS sources)
      file(STRINGS ${source} first REGEX "^#include \"" LIMIT_COUNT 1)
      string(REGEX REPLACE "^#include \"(.*)\".*" "\\1" first "${first}")
      list(REMOVE_ITEM headers "${first}")
    endforeach()
    # Of the CUDA backend: tests/cuda compiles them.
    list(FILTER headers EXCLUDE REGEX "/cuda/")
    foreach(header IN LISTS headers)
      string(REPLACE "/" "__" name ${header})
      set(unit ${PROJECT_BINARY_DIR}/${target}/${name}.cpp)
      set(text "#include \"${header}\"\n#include \"${header}\"  // twice: it must be guarded\n")
      file(CONFIGURE OUTPUT ${unit} CONTENT "${text}" @ONLY)
      list(APPEND units ${unit})
    endforeach()
  endforeach()
  list(LENGTH units count)
  message(STATUS "${target}: ${count} headers without a source of their own")
  add_library(${target} OBJECT EXCLUDE_FROM_ALL ${units}
              ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/empty.cpp)
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE -O0 -g0)
  target_link_libraries(${target} PRIVATE ${ARG_LINKS})
endfunction()
