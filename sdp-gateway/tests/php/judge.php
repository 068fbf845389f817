<?php
// Evaluates every <dir>/*.php in a child of its own and writes what each sets to <dir>/verdict.json:
// {"name": null when PHP refuses the file, else {"path/to/key": "hex of the value", …}}.
// Where there is a <dir>/<name>.key, the request carries it in the header X-SDP-Sandbox.
ini_set('display_errors', '0');
error_reporting(0);

function flatten(string $path, mixed $value, array &$into): void
{
    if (is_array($value)) {
        foreach ($value as $key => $inner) {
            flatten($path . '/' . bin2hex((string) $key), $inner, $into);
        }
        return;
    }
    $into[$path] = is_string($value) ? bin2hex($value) : 'not a string: ' . var_export($value, true);
}

function evaluate(string $__file): array
{
    define('BASEPATH', '/');
    define('BASE', 'http://base');
    ob_start();
    $__result = include $__file;
    ob_end_clean();
    $values = [];
    $variables = get_defined_vars();
    unset($variables['__file'], $variables['__result'], $variables['values']);
    flatten('return', $__result, $values);
    flatten('var', $variables, $values);
    $constants = get_defined_constants(true)['user'] ?? [];
    unset($constants['SDP_ROUTES'], $constants['SDP_HEADERS']);
    flatten('const', $constants, $values);
    return $values;
}

$dir = $argv[1];
$verdicts = [];
foreach (glob("$dir/*.php") as $file) {
    $out = "$file.out";
    $child = pcntl_fork();
    if ($child === 0) {
        pcntl_alarm(10);
        $key = substr($file, 0, -3) . 'key';
        if (is_file($key)) {
            $_SERVER['HTTP_X_SDP_SANDBOX'] = file_get_contents($key);
        }
        $values = evaluate($file);
        file_put_contents($out, json_encode((object) $values, JSON_THROW_ON_ERROR));
        exit(0);
    }
    pcntl_waitpid($child, $status);
    $ended = pcntl_wifexited($status) && pcntl_wexitstatus($status) === 0 && is_file($out);
    $verdicts[basename($file, '.php')] = $ended ? json_decode(file_get_contents($out)) : null;
}
file_put_contents("$dir/verdict.json", json_encode((object) $verdicts, JSON_THROW_ON_ERROR));
