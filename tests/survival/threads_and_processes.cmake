# Threads and processes: programs that the recorder is preloaded into, and the scripts that compare.
find_package(Threads REQUIRED)

# Programs that the recorder is preloaded into: never with sanitizers.
function(heapflare_survival_program name)
  add_executable(${name} ${name}.cc)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -O2 -g -Wall -Wextra -Werror)
  target_link_libraries(${name} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival)
endfunction()

function(heapflare_survival_library name source)
  add_library(${name} MODULE ${source})
  target_compile_options(${name} PRIVATE -O2 -g -Wall -Wextra -Werror)
  target_compile_definitions(${name} PRIVATE ${ARGN})
  target_link_options(${name} PRIVATE -Wl,--build-id=sha1)
  set_target_properties(${name} PROPERTIES
    PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/survival)
endfunction()

foreach(part threads endings processes signals fibres libraries service)
  heapflare_survival_program(${part}_program)
endforeach()
heapflare_survival_library(reentrant_malloc reentrant_malloc.cc)
target_compile_options(reentrant_malloc PRIVATE -fno-builtin-malloc -fno-builtin-calloc)
foreach(name First Other Third)
  heapflare_survival_library(plugin_${name} plugin.cc PLUGIN_NAME=${name} PLUGIN_MARK="${name}")
endforeach()
foreach(part threads processes services)
  heapflare_script_test(survival_${part} ${CMAKE_CURRENT_SOURCE_DIR}/${part}_test.py
    LABEL survival TIMEOUT 300)
endforeach()
