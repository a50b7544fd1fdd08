# Prints a C++ header with the words of a file.
echo '#include <string_view>'
echo 'inline constexpr std::string_view kTable[] = {'
while IFS= read -r word; do
  echo "    \"$word\","
done < "$1"
echo '};'
