# How a layer is built: bakestone_layer(NAME DEPS ... LIBS ...).
#
# Every src/<layer>/**/*.cc that is no *_test.cc and no main.cc goes into the static library bakestone_<layer>;
# every *_test.cc goes into the one test binary <layer>_test. DEPS are lower layers, LIBS outside
# libraries. A file that needs flags of its own (an ISA) sets them in its folder's CMakeLists.txt.
#
# Layers above the kernels share precompiled headers of the standard library, fmt and JSON, and their tests
# others with GoogleTest; every file names what it needs all the same (the preset `clang` builds without them).
# Layers that compute nothing are compiled with -O1, which takes about a quarter less time.

option(BAKESTONE_TESTS "Build the unit tests" ON)
option(BAKESTONE_BENCH "Build the micro-benchmarks" OFF)
option(BAKESTONE_FUZZ "Build the libFuzzer targets (clang)" OFF)
option(BAKESTONE_UNITY "Compile the sources of some layers together: for builds from nothing" OFF)
set(BAKESTONE_SANITIZE "" CACHE STRING "Sanitizers for the whole build, e.g. address,undefined")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)  # the two words let it serve what is compiled with precompiled headers
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM AND NOT CMAKE_CROSSCOMPILING)
  add_link_options(-fuse-ld=mold)
endif()

# Options structs are filled by designated initializers: what is left out has its default.
# -ffp-contract=off: a fused multiply-add is written as one or not done (docs/numerics.md).
add_compile_options(-Wall -Wextra -Wpedantic -Werror -Wno-missing-field-initializers
                    -ffp-contract=off -fno-math-errno)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")  # libstdc++ 12's stable_sort uses what it deprecates itself
  add_compile_options(-Wno-deprecated-declarations)
endif()
if(BAKESTONE_UNITY AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # a file's own types are its own in a group, too
  add_compile_options(-Wno-subobject-linkage)
endif()
if(BAKESTONE_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O1")  # what it is built for is run once
  add_compile_options(-fsanitize=${BAKESTONE_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${BAKESTONE_SANITIZE})
  add_compile_definitions(BAKESTONE_SANITIZED=1)
endif()
if(BAKESTONE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

set(BAKESTONE_OWN_FLAGS base tensor kernels ops)            # small, or compiled with flags of their own
set(BAKESTONE_NO_HOT_LOOPS store convert server pipeline load cli)
# Where no two files use one name for two things.
set(BAKESTONE_TOGETHER base tensor ops text format model data store engine eval grammar train convert server pipeline)

function(bakestone_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS;TEST_LIBS" ${ARGN})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(sources ${all})
  list(FILTER sources EXCLUDE REGEX "(_(test|bench)|/main)\\.cc$")
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(TRANSFORM ARG_DEPS PREPEND bakestone_)
  set(scope PUBLIC)
  if(sources)
    add_library(bakestone_${name} STATIC ${sources})
  else()
    add_library(bakestone_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(bakestone_${name} ${scope} ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(bakestone_${name} ${scope} ${ARG_DEPS} ${ARG_LIBS})
  if(name IN_LIST BAKESTONE_NO_HOT_LOOPS)
    target_compile_options(bakestone_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
  if(BAKESTONE_UNITY AND sources AND name IN_LIST BAKESTONE_TOGETHER)
    set_target_properties(bakestone_${name} PROPERTIES UNITY_BUILD ON)
  endif()
  if(sources AND NOT name IN_LIST BAKESTONE_OWN_FLAGS)
    target_precompile_headers(bakestone_${name} REUSE_FROM bakestone_headers)
  endif()
  if(tests AND BAKESTONE_TESTS)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE bakestone_${name} ${ARG_TEST_LIBS} bakestone_testing)
    target_precompile_headers(${name}_test REUSE_FROM bakestone_test_headers)
    if(NOT name IN_LIST BAKESTONE_OWN_FLAGS)  # the others' tests have loops of their own
      target_compile_options(${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)
    endif()
    add_test(NAME ${name} COMMAND ${name}_test)
    set(timeout 600)
    if(BAKESTONE_SANITIZE)  # up to ten times slower
      set(timeout 3600)
    endif()
    set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout})
  endif()
endfunction()
