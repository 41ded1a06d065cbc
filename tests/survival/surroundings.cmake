# Bad surroundings: directories, volumes, limits, filters, names, settings, clocks, failing system
# calls.
find_package(Threads REQUIRED)
foreach(program surroundings_service surroundings_inject surroundings_seccomp)
  add_executable(${program} ${program}.cc)
  target_include_directories(${program} PRIVATE ${CMAKE_SOURCE_DIR}/include)
  target_compile_options(${program} PRIVATE -O2 -g -Wall -Wextra -Werror)
  target_link_libraries(${program} PRIVATE Threads::Threads)
  set_target_properties(${program} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival)
endforeach()

foreach(group directories limits identity settings faults)
  heapflare_script_test(surroundings_${group} ${CMAKE_CURRENT_SOURCE_DIR}/surroundings_${group}.py
    LABEL survival TIMEOUT 300)
endforeach()
