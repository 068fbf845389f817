<?php
(static function (): void {
    $prefix = getenv('SDP_PREFIX');
    $root = realpath(getenv('SDP_ROOT'));
    $path = rawurldecode((string) parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH));
    if (strncmp($path . '/', $prefix, strlen($prefix)) !== 0) {
        http_response_code(404);
        exit("not found\n");
    }
    $inner = (string) substr($path, strlen($prefix));
    $file = realpath($root . '/' . $inner);
    $inside = $file !== false && strncmp($file . '/', $root . '/', strlen($root) + 1) === 0;
    if (!$inside || preg_match('#/\.(git|sdp)(/(?!probe-[0-9a-z]+\.php$)|$)#', '/' . $inner)) {
        $file = false;
    }
    if ($file !== false && is_dir($file)) {
        $file = realpath($file . '/index.php');
    }
    if ($file !== false && is_file($file) && substr($file, -4) !== '.php') {
        header('Content-Type: ' . (mime_content_type($file) ?: 'application/octet-stream'));
        readfile($file);
        exit;
    }
    $script = $file !== false && is_file($file) ? $file : $root . '/index.php';
    if (!is_file($script)) {
        http_response_code(404);
        exit("not found\n");
    }
    $_SERVER['SCRIPT_FILENAME'] = $script;
    $_SERVER['SCRIPT_NAME'] = $prefix . ltrim(substr($script, strlen($root)), '/');
    $_SERVER['PHP_SELF'] = $_SERVER['SCRIPT_NAME'];
    $GLOBALS['__sdp_script'] = $script;
    chdir(dirname($script));
})();
require $GLOBALS['__sdp_script'];
