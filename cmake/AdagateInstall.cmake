include(CMakePackageConfigHelpers)
set(ADAGATE_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/adagate)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/adagateConfig.cmake.in
  ${PROJECT_BINARY_DIR}/adagateConfig.cmake INSTALL_DESTINATION ${ADAGATE_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/adagateConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(EXPORT adagateTargets NAMESPACE adagate:: DESTINATION ${ADAGATE_CMAKE_DIR})
install(FILES ${PROJECT_BINARY_DIR}/adagateConfig.cmake
              ${PROJECT_BINARY_DIR}/adagateConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindOneDnn.cmake DESTINATION ${ADAGATE_CMAKE_DIR})
