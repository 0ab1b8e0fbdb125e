# Runs two programs and fails unless both succeed with the same output.
#   cmake -DA=... -DB=... -P compare_outputs.cmake
foreach(which A B)
  execute_process(COMMAND ${${which}} OUTPUT_VARIABLE OUT_${which} RESULT_VARIABLE RC)
  if(NOT RC EQUAL 0)
    message(FATAL_ERROR "${${which}} failed (${RC}):\n${OUT_${which}}")
  endif()
endforeach()
if(NOT OUT_A STREQUAL OUT_B)
  message(FATAL_ERROR "outputs differ:\n${OUT_A}\n--- and ---\n${OUT_B}")
endif()
message("${OUT_A}")
