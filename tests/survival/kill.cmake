# SIGKILL at any instant, and signals at any instruction.
find_package(Threads REQUIRED)

# Programs that are killed: libheapflare.so is preloaded into them, so they have no sanitizers.
function(heapflare_killed_target name)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/include)
  target_compile_options(${name} PRIVATE -O2 -g -Wall -Wextra -Werror)
  target_link_libraries(${name} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival)
endfunction()
add_library(kill_plugin MODULE kill_plugin.cc)
add_executable(kill_workload kill_workload.cc)
heapflare_killed_target(kill_plugin)
heapflare_killed_target(kill_workload)

# Programs that kill and read what is left.
add_library(kill_support STATIC kill_box_check.cc)
target_link_libraries(kill_support PUBLIC heapflare_profile)
add_executable(kill_random kill_random.cc)
target_link_libraries(kill_random PRIVATE kill_support)
set_target_properties(kill_random PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival)

heapflare_script_test(kill_anywhere_test ${CMAKE_CURRENT_LIST_DIR}/kill_anywhere_test.py
  LABEL survival TIMEOUT 600)

# Instruction by instruction, which is written for one processor.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_executable(kill_steps_victim kill_steps_victim.cc)
  heapflare_killed_target(kill_steps_victim)
  add_library(kill_stepping STATIC kill_scene.cc kill_tracee.cc)
  target_link_libraries(kill_stepping PUBLIC kill_support)
  foreach(program kill_steps kill_torture)
    add_executable(${program} ${program}.cc)
    target_link_libraries(${program} PRIVATE kill_stepping)
    set_target_properties(${program} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival)
    add_test(NAME ${program} COMMAND ${program} --victim=$<TARGET_FILE:kill_steps_victim>
             --plugin=$<TARGET_FILE:kill_plugin> --library=$<TARGET_FILE:heapflare>)
    set_tests_properties(${program} PROPERTIES LABELS survival SKIP_RETURN_CODE 77 TIMEOUT 600)
  endforeach()
endif()
